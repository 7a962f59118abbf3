"""What Google's errors say of a key: refused for now (a quota), bad for good (a fault), or nothing. Pure functions.

The bodies this was written against are recorded in `tests/gemini_errors.py`, with their sources.
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
    """Which allowance a refusal speaks of; the longest-lived of them counts."""

    DAY = "day"
    MINUTE = "minute"  # requests
    TOKENS = "tokens"  # of input, a minute
    NONE = "none"  # limit 0: this project may not use this model
    CREDITS = "credits"  # prepaid credits or a spending cap: all models, until somebody acts
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
    """What a project may ask of a model; None where it is not known."""

    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    requests_per_day: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429 as read. delay: seconds, None when Google named none. limit: the quota's value, None when not told.

    limits: every limit that the refusal told, also of windows that are not the longest-lived. model_name: the model
    whose quota it is, as Google calls it, "" when not told.
    """

    window: Window
    delay: float | None = None
    limit: int | None = None
    limits: Limits = NO_LIMITS
    model_name: str = ""


# A daily refusal used to come with a delay below a minute that meant nothing; a true one is hours long.
_SHORTEST_TRUE_DELAY = 120
_LONGEST_DELAY = 31 * 86_400  # nothing of Google's lasts longer; what says so is no number
_MINUTE = timedelta(seconds=60)
_LONGEST_NAME = 200  # of a quota, or of a delay; the patterns below take too long for what is endless
_LIMIT_ZERO = re.compile(r"limit:\s*0(?!\d|\.\d)")
_NO_FREE_QUOTA = re.compile(r"does(?:n.t| not) have a free quota tier")
# In the name of a metric, or in the words of the older form, which names a limit of its own for each window.
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
# On the OpenAI endpoint, and for leaked keys, Google sends words alone. They count only where the message begins with
# them: further on, Google may be quoting the client.
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
    """Return what a 429 (or a 402) says; None for other statuses.

    A body that is no error of Google's, or none at all, still refuses the key; HTML does not: it blames the way out.
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
    """Return the number of the Google project that an error body blames; None when it names none.

    Only from where Google itself puts it: elsewhere the message may quote the client.
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
    """Return when a key may be asked again, in UTC; None: when somebody acts.

    refusals_in_a_row: those before this one. A refusal that says nothing rests a minute, doubling, up to the reset;
    is_bare_for_the_day: up to the reset at once.
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
    """Return why Google will not take this key any more; None when the error is about the request or passes by."""
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
    """Return the message of an error body, on one line, at most 300 characters; "" when there is none."""
    error = error_in(content)
    return " ".join(str(error.get("message", "")).split())[:300]


def _is_html(content: bytes) -> bool:
    """Tell by its first character, since gateways get the content type wrong both ways."""
    return content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")


def _delay_in(error: dict[str, Any], message: str) -> float | None:
    """Return Google's delay in seconds, from RetryInfo or else from the message; both may be Go-style `19h34m29.8s`."""
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
    """Return the limits told; of several for one window the lowest, which is the one that is met."""
    known: dict[str, int] = {}
    for violation in violations:
        quota_id, value = _id_of(violation), str(violation.get("quotaValue", ""))
        name = next((name for pattern, name in _LIMIT_BY_QUOTA_ID if pattern.search(quota_id)), None)
        if name and _WHOLE_NUMBER.fullmatch(value):
            known[name] = min(int(value), known.get(name, int(value)))
    return Limits(**known)


def _model_of(violations: list[dict[str, Any]]) -> str:
    """Return the model that all violations speak of; "" when they name none, or several."""
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
