"""What Google's errors say about a key: an exceeded quota (a refusal), a bad key (a fault), or nothing. Pure functions.

`tests/gemini_errors.py` has real error bodies with their sources.
"""

import codecs
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any, NamedTuple

from proxy.gemini.error_body import error_in, metadata_in, violations_in
from proxy.gemini.quota_day import next_reset


class Window(StrEnum):
    """The quota that a refusal is about. If it is about several, the one that lasts longest."""

    DAY = "day"
    MINUTE = "minute"  # requests per minute
    TOKENS = "tokens"  # input tokens per minute
    NONE = "none"  # limit 0: the project has no access to the model
    CREDITS = "credits"  # prepaid credits or a spending cap, for all models, until revived manually
    UNKNOWN = "unknown"


class Fault(StrEnum):
    """Why a key is bad. A bad key leaves the rotation until it is revived."""

    INVALID = "invalid"
    EXPIRED = "expired"
    SUSPENDED = "suspended"
    LEAKED = "leaked"
    DENIED = "denied"
    BLOCKED = "blocked"


class Limits(NamedTuple):
    """A project's limits for a model; None where unknown."""

    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    requests_per_day: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The content of a 429."""

    window: Window
    # Seconds; None if Google gave none.
    delay: float | None = None
    # The limit of `window`; None if Google gave none.
    limit: int | None = None
    # All limits in the refusal.
    limits: Limits = NO_LIMITS
    # The model whose quota this is, in Google's terms; "" if Google named none.
    model_name: str = ""


# Daily refusals used to have a meaningless delay of less than a minute. A real delay is hours long.
_SHORTEST_TRUE_DELAY = 120
_LONGEST_DELAY = 31 * 86_400  # no real delay is longer
_MINUTE = timedelta(seconds=60)
_LONGEST_NAME = 200  # of a quota or a delay, since the patterns below are slow on very long texts
_LIMIT_ZERO = re.compile(r"limit:\s*0(?!\d|\.\d)")
_NO_FREE_QUOTA = re.compile(r"does(?:n.t| not) have a free quota tier")
# In the name of a metric, or in the older form, where each window has a limit with its own name.
_PER_DAY = re.compile(r"per_day|^quota exceeded for quota metric '[^'\n]{0,200}' and limit '[^'\n]{0,200} per day\b")
_PER_MINUTE = re.compile(
    r"per_minute|^quota exceeded for quota metric '[^'\n]{0,200}' and limit '[^'\n]{0,200} per minute\b"
)
_RETRY_IN = re.compile(r"retry in\s+([0-9hms.]+)", re.IGNORECASE)
_MODEL_NAME = re.compile(r"[a-z0-9][\w.-]{0,199}", re.ASCII)
_WHOLE_NUMBER = re.compile(r"[0-9]{1,15}")
_TOKENS_PER_MINUTE = re.compile(r"(?<!Output)Token\w*PerMinute")
_LIMIT_BY_QUOTA_ID = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (_TOKENS_PER_MINUTE.pattern, "input_tokens_per_minute"),
        (r"Requests\w*PerMinute", "requests_per_minute"),
        (r"Requests\w*PerDay", "requests_per_day"),
    )
)
_PROJECT = re.compile(
    r"(?:Permission denied: Consumer '|Generative Language API has not been used in "
    r"|Quota exceeded for quota metric '[^']*' and limit '[^']*' of service '[^']*' for consumer ')?"
    r"(?:projects/|project[ _]number:|project )([0-9]{4,20})\b"
)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_FAULT_BY_REASON = {
    "API_KEY_INVALID": Fault.INVALID,
    "API_KEY_EXPIRED": Fault.EXPIRED,
    "CONSUMER_SUSPENDED": Fault.SUSPENDED,
    "CONSUMER_INVALID": Fault.DENIED,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": Fault.INVALID,
    "CREDENTIALS_MISSING": Fault.INVALID,
    "SERVICE_DISABLED": Fault.BLOCKED,
}
# On the OpenAI endpoint, and for leaked keys, Google sends only a message. The words count only at its start, since
# Google may quote the client after that.
_FAULT_BY_WORDS = tuple(
    (re.compile(pattern, re.IGNORECASE), fault)
    for pattern, fault in (
        (r"API key expired", Fault.EXPIRED),
        (r"Your API key was reported as leaked", Fault.LEAKED),
        (r"Permission denied: Consumer \S+ has been suspended", Fault.SUSPENDED),
        (r"Your project has been denied access", Fault.DENIED),
        (r"(?:Invalid API key|API key not (?:valid|found))", Fault.INVALID),
        (r"Generative Language API has not been used in project \S+ before or it is disabled", Fault.BLOCKED),
    )
)


def read_refusal(status: int, content: bytes) -> Refusal | None:
    """Return the refusal in a 429 or 402; None for other statuses.

    Any body, even an empty one, is a refusal, except HTML: that comes from something between us and Google.
    """
    if status not in (402, 429) or _is_html(content):
        return None
    error = error_in(content)
    message = str(error.get("message", ""))
    words = message.lower()
    if status == 402 or "credits are depleted" in words or "spending cap" in words:
        return Refusal(Window.CREDITS)
    violations = violations_in(error)
    quota_ids = " ".join(map(_id_of, violations))
    values = [str(item.get("quotaValue")) for item in violations if "quotaValue" in item]
    delay, model_name = _delay_in(error, message), _model_of(violations)
    if "0" in values or _LIMIT_ZERO.search(words) or (not values and _NO_FREE_QUOTA.search(words)):
        return Refusal(Window.NONE, delay, 0, model_name=model_name)
    limits = _limits_in(violations)
    if "PerDay" in quota_ids or "Daily" in quota_ids or _PER_DAY.search(words):
        return Refusal(Window.DAY, delay, _value_of(violations, "PerDay"), limits, model_name)
    if limits.requests_per_minute is None and _TOKENS_PER_MINUTE.search(quota_ids):
        return Refusal(Window.TOKENS, delay, limits.input_tokens_per_minute, limits, model_name)
    if "PerMinute" in quota_ids or _PER_MINUTE.search(words):
        limit = limits.requests_per_minute or _value_of(violations, "PerMinute")
        return Refusal(Window.MINUTE, delay, limit, limits, model_name)
    return Refusal(Window.UNKNOWN, delay, None, limits, model_name)


def project_in(content: bytes) -> str | None:
    """Return the number of the Google project that an error body names; None if it names none.

    It is read only from where Google itself puts it, since other parts of the message may quote the client.
    """
    error = error_in(content)
    consumers = [str(metadata.get("consumer", "")) for metadata in metadata_in(error)]
    for text in [*consumers, str(error.get("message", ""))]:
        if found := _PROJECT.match(text):
            return found[1]
    return None


def cooldown_end(
    refusal: Refusal, moment: datetime, zone: tzinfo, refusals_in_a_row: int, *, is_bare_for_the_day: bool = False
) -> datetime | None:
    """Return the end of a key's cooldown, in UTC; None if it must be revived manually.

    refusals_in_a_row: before this one. A refusal without details has a cooldown of a minute, which doubles each time,
    up to the reset. is_bare_for_the_day: such a refusal has a cooldown until the reset.
    """
    moment = moment.astimezone(UTC)  # arithmetic in a zone ignores its clock changes
    reset = next_reset(moment, zone)
    delay = None if refusal.delay is None else timedelta(seconds=refusal.delay)
    if refusal.window in (Window.NONE, Window.CREDITS):
        return None
    if refusal.window is Window.DAY:
        has_true_delay = refusal.delay is not None and refusal.delay > _SHORTEST_TRUE_DELAY
        return moment + delay if delay and has_true_delay else reset
    if refusal.window in (Window.MINUTE, Window.TOKENS) or delay:
        return moment + (delay or _MINUTE)
    if is_bare_for_the_day:
        return reset
    return min(moment + _MINUTE * int(2 ** min(refusals_in_a_row, 16)), reset)


def read_fault(status: int, content: bytes) -> Fault | None:
    """Return why Google rejects the key; None if the error is about the request, or temporary."""
    if status not in (400, 401, 403):
        return None
    error = error_in(content)
    for detail in error["details"]:
        reason = str(detail.get("reason", ""))
        if reason in _FAULT_BY_REASON:
            is_expired = "expired" in str(error.get("message", "")).lower()
            return Fault.EXPIRED if is_expired and reason == "API_KEY_INVALID" else _FAULT_BY_REASON[reason]
        if reason.startswith("API_KEY_") and reason.endswith("_BLOCKED"):
            return Fault.BLOCKED
    message = str(error.get("message", ""))
    return next((fault for pattern, fault in _FAULT_BY_WORDS if pattern.match(message)), None)


def message_in(content: bytes) -> str:
    """Return the message of an error body on one line, at most 300 characters; "" if there is none."""
    error = error_in(content)
    return " ".join(str(error.get("message", "")).split())[:300]


def _is_html(content: bytes) -> bool:
    """Tell by the first character, since gateways often send a wrong content type."""
    return content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")


def _delay_in(error: dict[str, Any], message: str) -> float | None:
    """Return Google's delay in seconds, from RetryInfo or the message. Both can look like `19h34m29.8s`."""
    texts = [str(detail["retryDelay"]) for detail in error["details"] if "retryDelay" in detail]
    if found := _RETRY_IN.search(message):
        texts.append(found[1])
    delays = [
        sum(float(number) * _SECONDS[unit] for number, unit in parts)
        for parts in (_DURATION_PART.findall(text[:_LONGEST_NAME]) for text in texts)
        if parts
    ]
    return min(max(delays), _LONGEST_DELAY) if delays else None


def _id_of(violation: dict[str, Any]) -> str:
    return str(violation.get("quotaId", ""))[:_LONGEST_NAME]


def _limits_in(violations: list[dict[str, Any]]) -> Limits:
    """Return the limits in the violations. If there are several for one window, the lowest applies."""
    known: dict[str, int] = {}
    for violation in violations:
        quota_id, value = _id_of(violation), str(violation.get("quotaValue", ""))
        name = next((name for pattern, name in _LIMIT_BY_QUOTA_ID if pattern.search(quota_id)), None)
        if name and _WHOLE_NUMBER.fullmatch(value):
            known[name] = min(int(value), known.get(name, int(value)))
    return Limits(**known)


def _model_of(violations: list[dict[str, Any]]) -> str:
    """Return the model that all violations name; "" if they name none, or several."""
    dimensions = [violation.get("quotaDimensions") for violation in violations]
    names = {str(found.get("model", "")) for found in dimensions if isinstance(found, dict)}
    name = names.pop() if len(names) == 1 else ""
    return name if _MODEL_NAME.fullmatch(name) else ""


def _value_of(violations: list[dict[str, Any]], window: str) -> int | None:
    for violation in violations:
        value = str(violation.get("quotaValue", ""))
        if window in _id_of(violation) and _WHOLE_NUMBER.fullmatch(value):
            return int(value)
    return None
