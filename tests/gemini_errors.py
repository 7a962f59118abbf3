"""The Gemini API's errors, as recorded. Each function returns a complete answer. No key in them is real.

The body is `{"error": {"code", "message", "status", "details"}}`. On the OpenAI endpoint, the real API wraps it in an
array, and so does `fake_gemini`. No error has a Retry-After header: the delay is in the body.
S1 to S17 number the samples; the source of each is the public thread or recording it was taken from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_TYPE = "type.googleapis.com/google.rpc."
_SERVICE = "generativelanguage.googleapis.com"
_LIMITS_PAGE = "https://ai.google.dev/gemini-api/docs/rate-limits"
_REQUESTS = f"{_SERVICE}/generate_content_free_tier_requests"
_INPUT_TOKENS = f"{_SERVICE}/generate_content_free_tier_input_token_count"
_OVER_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. "
    f"For more information on this error, head to: {_LIMITS_PAGE}."
)

PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
TOKENS_PER_DAY = "GenerateContentInputTokensPerModelPerDay-FreeTier"
TOKENS_PER_MINUTE = "GenerateContentInputTokensPerModelPerMinute-FreeTier"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. body: a dict is sent as JSON, with gzip if the client accepts it; bytes are sent unchanged.

    headers: they replace the usual headers with the same name, in any case.
    """

    status: int = 200
    body: dict[str, Any] | bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Violation(NamedTuple):
    """A quota that a request exceeded. value: its limit; None if Google does not report it."""

    quota_id: str
    value: int | None


def error(code: int, status: str, message: str, *details: dict[str, Any]) -> Reply:
    """Return any error in Gemini's format. status: google.rpc.Code, such as "NOT_FOUND"."""
    content: dict[str, Any] = {"code": code, "message": message, "status": status}
    return Reply(code, {"error": content | ({"details": list(details)} if details else {})})


def not_found() -> Reply:
    """Return the error for a path or a resource that does not exist."""
    return error(404, "NOT_FOUND", "Requested entity was not found.")


def _info(reason: str, **metadata: str) -> dict[str, Any]:
    content = {"@type": f"{_TYPE}ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    return content | {"metadata": metadata | {"service": _SERVICE}}


def _localized(message: str) -> dict[str, Any]:
    return {"@type": f"{_TYPE}LocalizedMessage", "locale": "en-US", "message": message}


def go_duration(seconds: float) -> str:
    """Return seconds as Go prints them and Google's messages have them: "19h34m29.838605682s"."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    last = f"{rest:.9f}".rstrip("0").rstrip(".")
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{last}s"


def quota_exceeded(model: str, *violations: Violation, delay_seconds: float) -> Reply:
    """Return a 429 for these quotas; the delay is in its message and, in whole seconds, in RetryInfo."""
    lines = [
        f"\n* Quota exceeded for metric: {_metric(quota_id)}, limit: {value or 0}, model: {model}"
        for quota_id, value in violations
    ]
    message = f"{_OVER_QUOTA} {''.join(lines)}\nPlease retry in {go_duration(delay_seconds)}."
    return error(429, "RESOURCE_EXHAUSTED", message, *_quota_details(model, violations, delay_seconds))


def _metric(quota_id: str) -> str:
    return _INPUT_TOKENS if "InputTokens" in quota_id else _REQUESTS


def _quota_details(model: str, violations: Iterable[Violation], delay_seconds: float) -> list[dict[str, Any]]:
    failures = [
        {
            "quotaMetric": _metric(quota_id),
            "quotaId": quota_id,
            "quotaDimensions": {"location": "global", "model": model},
            **({} if value is None else {"quotaValue": str(value)}),
        }
        for quota_id, value in violations
    ]
    links = [{"description": "Learn more about Gemini API quotas", "url": _LIMITS_PAGE}]
    return [
        {"@type": f"{_TYPE}QuotaFailure", "violations": failures},
        {"@type": f"{_TYPE}Help", "links": links},
        {"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{int(delay_seconds)}s"},
    ]


def violated_in(reply: Reply) -> tuple[str, ...]:
    """Return the IDs of the quotas that a 429 names, or nothing for other answers."""
    details = reply.body["error"].get("details", []) if isinstance(reply.body, dict) and "error" in reply.body else []
    return tuple(violation["quotaId"] for detail in details for violation in detail.get("violations", []))


def per_minute_tokens(model: str = "gemini-2.5-flash") -> Reply:
    """Return S1: tokens per minute, with the delay only in RetryInfo. Source: RooCodeInc/Roo-Code#3883."""
    details = _quota_details(model, [Violation(TOKENS_PER_MINUTE, 250_000)], 26)
    return error(429, "RESOURCE_EXHAUSTED", _OVER_QUOTA, *details)


def per_day_short(model: str = "gemini-2.5-flash-lite") -> Reply:
    """Return S2: requests per day, with a misleading delay. Source: itcon-pty-au/stremio-ai-search#147."""
    return quota_exceeded(model, Violation(PER_DAY, 20), delay_seconds=37.82626638)


def per_day_long(model: str = "gemini-2.5-flash", delay_seconds: float = 70469.838605682) -> Reply:
    """Return S3: requests per day, with the true delay, as since autumn 2026. Source: dev.to/nils44344."""
    return quota_exceeded(model, Violation(PER_DAY, 20), delay_seconds=delay_seconds)


def limit_zero(model: str = "gemini-3-pro") -> Reply:
    """Return S4: a model that is not in the project's tier, without a quotaValue. From continuedev/continue#9570."""
    quotas = (PER_DAY, PER_MINUTE, TOKENS_PER_MINUTE, TOKENS_PER_DAY)
    return quota_exceeded(model, *(Violation(quota, None) for quota in quotas), delay_seconds=45.578569677)


def bare_429() -> Reply:
    """Return S8: a 429 that names no quota. Source: googleapis/python-genai#2065."""
    return error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")


def older_form(quota_limit: str, value: str, metric: str = "generate_content_requests", **more: str) -> Reply:
    """Return a quota that only ErrorInfo reports, as in 2024 and 2025. Source: tech-shrimp/gemini-playground#10."""
    message = (
        "Quota exceeded for quota metric 'Generate Content API requests per minute' and limit 'GenerateContent request "
        f"limit per minute for a region' of service '{_SERVICE}' for consumer 'project_number:391029737820'."
    )
    info = _info(
        "RATE_LIMIT_EXCEEDED",
        quota_location="us-west4",
        quota_limit_value=value,
        quota_limit=quota_limit,
        quota_metric=f"{_SERVICE}/{metric}",
        consumer="projects/391029737820",
        **more,
    )
    return error(429, "RESOURCE_EXHAUSTED", message, info)


def without_free_tier(*violations: Violation) -> Reply:
    """Return a model for paid projects only, in words. Source: ai-christianson/RA.Aid#182."""
    message = "Gemini 2.5 Pro Preview doesn't have a free quota tier. Please use Gemini 2.5 Pro Experimental instead."
    return error(429, "RESOURCE_EXHAUSTED", message, *_quota_details("gemini-2.5-pro", violations, 33))


def depleted() -> Reply:
    """Return S16: the prepaid credits are used up. Reported by many."""
    message = "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects"
    return error(429, "RESOURCE_EXHAUSTED", f"{message} to manage your project and billing.")


def spending_cap() -> Reply:
    """Return S16's other form: the monthly spending cap is reached."""
    message = "Your project has exceeded its monthly spending cap. Please go to AI Studio at"
    return error(429, "RESOURCE_EXHAUSTED", f"{message} https://ai.studio/spend to manage your spending cap.")


def html_429() -> Reply:
    """Return the page about the client's IP address, which says nothing about the key. Source: thooton/muse#6."""
    page = b"<html><head><title>Sorry...</title></head><body><h1>We're sorry...</h1><p>... but your computer"
    page += b" or network may be sending automated queries.</p></body></html>"
    return Reply(429, page, {"Content-Type": "text/html; charset=UTF-8"})


def invalid_key(message: str = "API key not valid. Please pass a valid API key.") -> Reply:
    """Return S6, a 400. Source: cequence-io/openai-scala-client#109."""
    return error(400, "INVALID_ARGUMENT", message, _info("API_KEY_INVALID"), _localized(message))


def expired_key() -> Reply:
    """Return S6 with another text and the same reason. Source: continuedev/continue#11336."""
    return invalid_key("API key expired. Please renew the API key.")


def suspended(secret: str, project_number: str = "895908428397") -> Reply:
    """Return S5, which repeats the secret three times. Source: continuedev/continue#10902."""
    message = f"Permission denied: Consumer 'api_key:{secret}' has been suspended."
    metadata = {"consumer": f"projects/{project_number}", "containerInfo": f"api_key:{secret}"}
    info = _info("CONSUMER_SUSPENDED", **metadata)
    return error(403, "PERMISSION_DENIED", message, info, _localized(message))


def leaked() -> Reply:
    """Return S7, which has no details. Source: continuedev/continue#11541."""
    message = "Your API key was reported as leaked. Please use another API key."
    return error(403, "PERMISSION_DENIED", message)


def denied() -> Reply:
    """Return S12: the project is banned. Source: poenl/gemini-api#8."""
    return error(403, "PERMISSION_DENIED", "Your project has been denied access. Please contact support.")


def service_blocked() -> Reply:
    """Return S11: the key is restricted to other services. Source: continuedev/continue#12781."""
    method = "google.ai.generativelanguage.v1beta.GenerativeService.StreamGenerateContent"
    message = f"Requests to this API {_SERVICE} method {method} are blocked."
    info = _info("API_KEY_SERVICE_BLOCKED", consumer="projects/895908428397", methodName=method)
    return error(403, "PERMISSION_DENIED", message, info, _localized(message))


def service_disabled() -> Reply:
    """Return a variant of S11: the API is disabled. Source: google-gemini/deprecated-generative-ai-python#10."""
    url = f"https://console.developers.google.com/apis/api/{_SERVICE}/overview?project=895908428397"
    message = "Generative Language API has not been used in project 895908428397 before or it is disabled. "
    message += f"Enable it by visiting {url} then retry."
    info = _info("SERVICE_DISABLED", consumer="projects/895908428397", activationUrl=url)
    return error(403, "PERMISSION_DENIED", message, _localized(message), info)


def no_credential() -> Reply:
    """Return the error for a request without a key. Source: PublicAffairs/openai-gemini#92."""
    message = "Method doesn't allow unregistered callers (callers without established identity). "
    message += "Please use API Key or other form of API consumer identity to call this API."
    return error(403, "PERMISSION_DENIED", message)


def two_credentials() -> Reply:
    """Return S9. Source: NousResearch/hermes-agent#7893."""
    message = "Multiple authentication credentials received. Please pass only one."
    return error(400, "INVALID_ARGUMENT", message)


def missing_bearer() -> Reply:
    """Return the OpenAI endpoint's error for another form of credential, as reported in April 2026."""
    return error(400, "INVALID_ARGUMENT", "Missing or invalid Authorization header.")


def wrong_credential_type() -> Reply:
    """Return S10: a key in place of an OAuth token. Source: google-gemini/gemini-cli#29275."""
    message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
    message += "or other valid authentication credential. See "
    message += "https://developers.google.com/identity/sign-in/web/devconsole-project."
    method = "google.ai.generativelanguage.v1beta.GenerativeService.GenerateContent"
    return error(401, "UNAUTHENTICATED", message, _info("ACCESS_TOKEN_TYPE_UNSUPPORTED", method=method))


def location() -> Reply:
    """Return S13: about the client's location, not the key. Source: snailyp/gemini-balance#328."""
    return error(400, "FAILED_PRECONDITION", "User location is not supported for the API use.")


def bad_request(message: str = "Request contains an invalid argument.") -> Reply:
    """Return the 400 for a request that is invalid with any key."""
    return error(400, "INVALID_ARGUMENT", message)


def unknown_model(name: str, version: str = "v1beta", action: str = "generateContent") -> Reply:
    """Return S17. Source: pydantic-ai's tests/models/cassettes."""
    message = f"models/{name} is not found for API version {version}, or is not supported for {action}. "
    message += "Call ModelService.ListModels to see the list of available models and their supported methods."
    return error(404, "NOT_FOUND", message)


def overloaded() -> Reply:
    """Return S14. Source: continuedev/continue#10639."""
    message = "This model is currently experiencing high demand. Spikes in demand are usually temporary. "
    return error(503, "UNAVAILABLE", f"{message}Please try again later.")


def internal() -> Reply:
    """Return S15. Source: PublicAffairs/openai-gemini#15."""
    message = "An internal error has occurred. Please retry or report in "
    return error(500, "INTERNAL", f"{message}https://developers.generativeai.google/guide/troubleshooting")


def deadline() -> Reply:
    """Return the 504 of a request that took too long. Source: letta-ai/letta#2861."""
    message = "Deadline expired before operation could complete."
    return error(504, "DEADLINE_EXCEEDED", message)
