"""How Google's errors are read. The bodies are the recorded ones in `gemini_errors.py`."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.gemini.refusals import (
    Fault,
    Limits,
    Refusal,
    Window,
    cooldown_end,
    message_in,
    project_in,
    read_fault,
    read_refusal,
)
from tests import gemini_errors as errors
from tests.conftest import FLASH, fake_secret
from tests.gemini_errors import Reply

PACIFIC = ZoneInfo("America/Los_Angeles")
NOON = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)  # in California
MIDNIGHT = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
SECRET = fake_secret("suspended")
OLDER_PER_MINUTE = "GenerateContentRequestsPerMinutePerProjectPerRegion"
OLDER_WORDS = (
    "Quota exceeded for quota metric 'A' and limit 'B' of service 'C' for consumer 'project_number:391029737820'."
)
PER_DAY_AND_MINUTE = [errors.Violation(errors.PER_MINUTE, 5), errors.Violation(errors.PER_DAY, 20)]

REFUSALS = {
    "tokens per minute": (
        errors.per_minute_tokens(),
        Refusal(Window.TOKENS, 26, 250_000, Limits(None, 250_000, None), FLASH),
    ),
    "requests per minute": (
        errors.quota_exceeded("m", errors.Violation(errors.PER_MINUTE, 5), delay_seconds=0.9),
        Refusal(Window.MINUTE, 0.9, 5, Limits(5, None, None), "m"),
    ),
    "requests and tokens per minute": (
        errors.quota_exceeded(
            "m",
            errors.Violation(errors.TOKENS_PER_MINUTE, 900),
            errors.Violation(errors.PER_MINUTE, 5),
            delay_seconds=9,
        ),
        Refusal(Window.MINUTE, 9, 5, Limits(5, 900, None), "m"),
    ),
    "per day, short delay": (
        errors.per_day_short(),
        Refusal(Window.DAY, 37.82626638, 20, Limits(None, None, 20), "gemini-2.5-flash-lite"),
    ),
    "per day, long delay": (
        errors.per_day_long(),
        Refusal(Window.DAY, 70469.838605682, 20, Limits(None, None, 20), FLASH),
    ),
    "limit 0": (errors.limit_zero(), Refusal(Window.NONE, 45.578569677, 0, model_name="gemini-3-pro")),
    "bare": (errors.bare_429(), Refusal(Window.UNKNOWN)),
    "depleted": (errors.depleted(), Refusal(Window.CREDITS)),
    "spending cap": (errors.spending_cap(), Refusal(Window.CREDITS)),
    "day and minute": (
        errors.quota_exceeded("m", *PER_DAY_AND_MINUTE, delay_seconds=8),
        Refusal(Window.DAY, 8, 20, Limits(5, None, 20), "m"),
    ),
    "minute and day": (
        errors.quota_exceeded("m", *reversed(PER_DAY_AND_MINUTE), delay_seconds=8),
        Refusal(Window.DAY, 8, 20, Limits(5, None, 20), "m"),
    ),
    "day and limit 0": (
        errors.quota_exceeded("m", *PER_DAY_AND_MINUTE, errors.Violation("OfAnotherKind", 0), delay_seconds=8),
        Refusal(Window.NONE, 8, 0, model_name="m"),
    ),
    "older form, limit 0": (errors.older_form(OLDER_PER_MINUTE, "0"), Refusal(Window.NONE, None, 0)),
    "older form, requests per minute": (
        errors.older_form(OLDER_PER_MINUTE, "60"),
        Refusal(Window.MINUTE, None, 60, Limits(60, None, None)),
    ),
    "older form, requests per day": (
        errors.older_form("GenerateContentRequestsPerDayPerProject", "1500", model=FLASH),
        Refusal(Window.DAY, None, 1500, Limits(None, None, 1500), FLASH),
    ),
    "older form, tokens per minute": (
        errors.older_form("GenerateContentInputTokensPerModelPerMinute", "32000", "generate_content_input_token_count"),
        Refusal(Window.TOKENS, None, 32_000, Limits(None, 32_000, None)),
    ),
    "older form, what is counted told by the metric alone": (
        errors.older_form("defaultPerMinutePerProject", "32000", "generate_content_input_token_count"),
        Refusal(Window.TOKENS, None, 32_000, Limits(None, 32_000, None)),
    ),
    "older form, in small letters": (
        errors.older_form("generate_content_requests_per_minute", "15"),
        Refusal(Window.MINUTE, None, 15, Limits(15, None, None)),
    ),
    "older form, the time told by the unit alone": (
        errors.older_form("default", "50", quota_unit="1/d/{project}"),
        Refusal(Window.DAY, None, 50, Limits(None, None, 50)),
    ),
    "without a free tier": (
        errors.without_free_tier(errors.Violation(errors.PER_DAY, None), errors.Violation(errors.PER_MINUTE, None)),
        Refusal(Window.NONE, 33, 0, model_name="gemini-2.5-pro"),
    ),
    "without a free tier, no violations": (errors.without_free_tier(), Refusal(Window.NONE, 33, 0)),
}
FAULTS = {
    "invalid": (errors.invalid_key(), Fault.INVALID),
    "not found": (errors.invalid_key("API Key not found. Please pass a valid API key."), Fault.INVALID),
    "expired": (errors.expired_key(), Fault.EXPIRED),
    "suspended": (errors.suspended(SECRET), Fault.SUSPENDED),
    "leaked": (errors.leaked(), Fault.LEAKED),
    "denied": (errors.denied(), Fault.DENIED),
    "blocked": (errors.service_blocked(), Fault.BLOCKED),
    "disabled": (errors.service_disabled(), Fault.BLOCKED),
    "wrong credential type": (errors.wrong_credential_type(), Fault.INVALID),
}
OF_THE_REQUEST = {
    "location": errors.location(),
    "bad request": errors.bad_request(),
    "thought signature": errors.bad_request("Thought signature is not valid"),
    "two credentials": errors.two_credentials(),
    "missing bearer": errors.missing_bearer(),
    "no credential": errors.no_credential(),
    "unknown model": errors.unknown_model("gemini-9"),
    "overloaded": errors.overloaded(),
    "internal": errors.internal(),
    "deadline": errors.deadline(),
    "html": errors.html_429(),
    "html 403": Reply(403, errors.html_429().body),
    "foreign file": errors.error(
        403, "PERMISSION_DENIED", "You do not have permission to access the File abc or it may not exist."
    ),
    "foreign cache": errors.error(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)"),
}


def as_message(text: str) -> Any:
    return {"error": {"message": text, "code": 429, "status": "Too Many Requests"}}


# What gateways make of an error they got: each takes its text and returns a value of JSON.
WRAPPINGS: dict[str, Callable[[str], Any]] = {
    "text": lambda text: text,
    "list of texts": lambda text: ["", text],
    "message": as_message,
    "message, twice": lambda text: as_message(json.dumps(as_message(text))),
    "message in a list, as text": lambda text: json.dumps([as_message(text)]),
    "error": lambda text: {"error": text},
    "error in an error": lambda text: {"error": {"error": json.loads(text)["error"]}},
    "list in an error": lambda text: {"error": [json.loads(text)["error"]]},
    "without a name": lambda text: json.loads(text)["error"],
    "message without an error": lambda text: {"message": json.dumps(json.loads(text)["error"])},
    "six times as text": lambda text: functools.reduce(lambda inner, _: json.dumps(inner), range(5), text),
}


def content_of(reply: Reply, *, in_array: bool = False) -> bytes:
    """Return the body as bytes, in an array if `in_array`, like the OpenAI endpoint."""
    if isinstance(reply.body, bytes):
        return reply.body
    return json.dumps([reply.body] if in_array else reply.body, indent=2).encode()


@pytest.mark.parametrize("in_array", [False, True])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_read(name: str, in_array: bool) -> None:
    reply, expected = REFUSALS[name]

    refusal = read_refusal(reply.status, content_of(reply, in_array=in_array))

    assert refusal is not None
    assert refusal.delay == pytest.approx(expected.delay)
    assert replace(refusal, delay=None) == replace(expected, delay=None)


@pytest.mark.parametrize("in_array", [False, True])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_no_fault(name: str, in_array: bool) -> None:
    reply, _ = REFUSALS[name]

    assert read_fault(reply.status, content_of(reply, in_array=in_array)) is None


@pytest.mark.parametrize("in_array", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_read(name: str, in_array: bool) -> None:
    reply, expected = FAULTS[name]
    content = content_of(reply, in_array=in_array)

    assert read_fault(reply.status, content) is expected
    assert read_refusal(reply.status, content) is None


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_read_however_often_something_on_the_way_has_packed_it(name: str, wrapping: str) -> None:
    reply, _ = REFUSALS[name]
    content = content_of(reply)
    packed = json.dumps(WRAPPINGS[wrapping](content.decode())).encode()

    assert read_refusal(reply.status, packed) == read_refusal(reply.status, content)
    assert message_in(packed) == message_in(content)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_read_however_often_something_on_the_way_has_packed_it(name: str, wrapping: str) -> None:
    reply, expected = FAULTS[name]
    content = content_of(reply)
    packed = json.dumps(WRAPPINGS[wrapping](content.decode())).encode()

    assert read_fault(reply.status, packed) is expected
    assert project_in(packed) == project_in(content)


def test_details_may_be_texts_and_may_stand_beside_the_error_that_was_packed() -> None:
    details = [json.dumps({"retryDelay": "26s"})]
    inner = json.dumps({"error": {"message": "Quota exceeded.", "details": json.dumps(details)}})
    info = {"reason": "API_KEY_INVALID"}

    assert read_refusal(429, json.dumps(as_message(inner)).encode()) == Refusal(Window.UNKNOWN, 26)
    assert read_fault(400, json.dumps({"error": {"message": inner, "details": [info]}}).encode()) is Fault.INVALID


@pytest.mark.parametrize("name", OF_THE_REQUEST)
@pytest.mark.parametrize("wrapping", ["text", "message", "error"])
def test_an_error_that_is_not_about_the_key_costs_it_nothing_when_packed_either(name: str, wrapping: str) -> None:
    reply = OF_THE_REQUEST[name]
    packed = json.dumps(WRAPPINGS[wrapping](content_of(reply).decode())).encode()

    assert read_fault(reply.status, packed) is None


@pytest.mark.parametrize("in_array", [False, True])
@pytest.mark.parametrize("name", OF_THE_REQUEST)
def test_an_error_that_is_not_about_the_key_costs_it_nothing(name: str, in_array: bool) -> None:
    reply = OF_THE_REQUEST[name]
    content = content_of(reply, in_array=in_array)

    assert read_fault(reply.status, content) is None
    assert read_refusal(reply.status, content) is None


@pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 503])
def test_only_a_429_or_402_is_a_refusal(status: int) -> None:
    assert read_refusal(status, content_of(errors.per_day_long())) is None


@pytest.mark.parametrize("status", [200, 404, 429, 500, 503])
def test_only_a_400_401_or_403_is_a_fault(status: int) -> None:
    assert read_fault(status, content_of(errors.invalid_key())) is None


def test_a_402_says_that_the_money_is_gone() -> None:
    content = content_of(errors.error(402, "FAILED_PRECONDITION", "Payment required."))

    assert read_refusal(402, content) == Refusal(Window.CREDITS)


def test_the_interactions_api_refuses_with_codes_in_words() -> None:
    content = b'{"error":{"code":"rate_limit_exceeded","message":"Please retry in 12.5s."}}'

    assert read_refusal(429, content) == Refusal(Window.UNKNOWN, 12.5)


@pytest.mark.parametrize(
    "phrase",
    [
        "api key not valid",
        "API key expired",
        "API key not found",
        "reported as leaked",
        "has been suspended",
        "denied access",
        "it is disabled",
        "invalid api key",
    ],
)
def test_words_of_a_client_that_google_repeats_cost_no_key_its_place(phrase: str) -> None:
    """Google quotes bad values. Otherwise a client could make every key of the pool bad with the right words."""
    field = "safety_settings[0].category"
    message = f"Invalid value at '{field}' (type.googleapis.com/google.ai.generativelanguage.v1beta.HarmCategory), "
    message += f'"{phrase}"'
    violations = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": field, "description": message}],
    }
    content = content_of(errors.error(400, "INVALID_ARGUMENT", message, violations))

    assert read_fault(400, content) is None


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("39043s", 39043),
        ("0s", 0),
        ("19h34m29.8s", 70469.8),
        ("19h34m29.838605682s", 70469.838605682),
        ("1h57m38s", 7058),
        ("34m", 2040),
        ("900ms", 0.9),
        ("1m500ms", 60.5),
        ("0.539s", 0.539),
        ("66734s", 66734),
    ],
)
@pytest.mark.parametrize("is_in_message", [False, True])
def test_delays_are_read_as_google_writes_them(delay: str, seconds: float, is_in_message: bool) -> None:
    details: list[dict[str, Any]] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    reply = errors.error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", *details)
    if is_in_message:
        reply = errors.error(429, "RESOURCE_EXHAUSTED", f"Quota exceeded.\nPlease retry in {delay}.")

    refusal = read_refusal(429, content_of(reply))

    assert refusal is not None
    assert refusal.delay == pytest.approx(seconds)


def test_the_longer_of_two_delays_counts() -> None:
    details = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
    content = content_of(errors.error(429, "RESOURCE_EXHAUSTED", "Please retry in 2h0m0.5s.", details))

    refusal = read_refusal(429, content)

    assert refusal == Refusal(Window.UNKNOWN, 7200.5)


@pytest.mark.parametrize("message", ["no delay", "Please retry in a while.", "Please retry in 45 seconds", ""])
def test_a_delay_that_is_not_told_is_none(message: str) -> None:
    assert read_refusal(429, content_of(errors.error(429, "RESOURCE_EXHAUSTED", message))) == Refusal(Window.UNKNOWN)


@pytest.mark.parametrize(
    ("message", "window"),
    [
        ("Quota exceeded for metric: x, limit: 0, model: gemini-3-pro", Window.NONE),
        ("Quota exceeded for metric: x, limit:0", Window.NONE),
        ("Quota exceeded for metric: x, limit: 0.", Window.NONE),
        ("Quota exceeded for metric: x, limit: 0.5, model: m", Window.UNKNOWN),
        ("Quota exceeded for metric: x, limit: 05, model: m", Window.UNKNOWN),
        ("Quota exceeded for metric: x, limit: 20, model: m", Window.UNKNOWN),
        ("Quota exceeded for metric: generate_requests_per_model_per_day, limit: 50", Window.DAY),
        ("Quota exceeded for metric: generate_requests_per_minute, limit: 5", Window.MINUTE),
        ("Quota exceeded for quota metric 'A requests' and limit 'A requests per day per user' of", Window.DAY),
        ("Quota exceeded for quota metric 'A requests' and limit 'limit per minute for a region' of", Window.MINUTE),
        ("You sent: and limit 'x per day", Window.UNKNOWN),
        ("Gemini 2.5 Pro does not have a free quota tier.", Window.NONE),
    ],
)
def test_words_tell_the_quota_when_there_are_no_details(message: str, window: Window) -> None:
    refusal = read_refusal(429, content_of(errors.error(429, "RESOURCE_EXHAUSTED", message)))

    assert refusal is not None
    assert refusal.window is window


NONSENSE = [
    b"",
    b"null",
    b"[]",
    b"[null]",
    b"[[]]",
    b"5",
    b'"error"',
    b"{}",
    b'{"error":null}',
    b'{"error":"no"}',
    b'{"error":[]}',
    b"\xff\xfe\x00",
    b"[" * 200_000,
    b'{"error":' * 200_000,
    b'{"error":{"details":' + b"[" * 200_000,
    b'{"error":{"code":' + b"9" * 10_000 + b"}}",
    b'{"error":{"message":"","details":["[',
    json.dumps({"error": {"message": "", "details": [{"retryDelay": "9" * 200_000}]}}).encode(),
    json.dumps({"error": {"message": "", "details": [{"violations": [{"quotaId": "Token" * 40_000}]}]}}).encode(),
    b'"' + b"[" * 200_000 + b'"',
    json.dumps(functools.reduce(lambda inner, _: json.dumps(inner), range(12), "{")).encode(),
    json.dumps({"error": {"message": "", "details": ["[" * 50_000] * 4}}).encode(),
]


@pytest.mark.parametrize("content", [b"<html>Sorry</html>", b"\xef\xbb\xbf\r\n <!DOCTYPE html>"])
def test_html_blames_a_middlebox_and_no_key(content: bytes) -> None:
    assert read_refusal(429, content) is None


@pytest.mark.parametrize("content", NONSENSE, ids=lambda content: repr(content[:20]))
def test_nonsense_says_nothing_of_a_key_but_a_429_refuses_it(content: bytes) -> None:
    refusal = read_refusal(429, content)
    assert refusal is not None
    assert refusal.window is Window.UNKNOWN
    assert read_fault(400, content) is None
    assert message_in(content) == ""


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["0", "20", "²", "-1", "PerDay", "PerMinute", "26s", "9" * 400 + "s", "limit: 0", "API_KEY_INVALID"]
    ),
    st.sampled_from(["Please retry in 99999999999999h.", "Please retry in ....s", "Please retry in 1h2h3h4ms5m"]),
)
FIELDS = st.sampled_from(
    [
        *(
            "error",
            "message",
            "code",
            "status",
            "details",
            "violations",
            "quotaId",
            "quotaValue",
            "retryDelay",
            "reason",
        ),
        *("metadata", "quota_limit", "quota_limit_value", "quota_metric", "quota_unit", "consumer"),
    ]
)
BODIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(FIELDS, inner, max_size=5)),
    max_leaves=20,
)


@given(error=st.dictionaries(FIELDS, BODIES, max_size=5), status=st.sampled_from([400, 401, 402, 403, 429]))
@settings(max_examples=80, deadline=None)
def test_no_error_however_odd_upsets_the_reading(error: dict[str, Any], status: int) -> None:
    content = json.dumps({"error": error}).encode()

    refusal = read_refusal(status, content)
    read_fault(status, content)

    assert len(message_in(content)) <= 300
    if refusal:
        until = cooldown_end(refusal, NOON, PACIFIC, 0)
        assert until is None or until >= NOON


@given(
    value=st.sampled_from(["²", "-5", "many", "9" * 5000, "1.5", "", " 7"]),
    delay=st.sampled_from(["9" * 400 + "s", "99999999999999999s", "-5s", "NaNs", "s", "ms", ".s", "1e5s"]),
    quota_id=st.sampled_from([errors.PER_DAY, errors.PER_MINUTE, "Else"]),
)
@settings(max_examples=80, deadline=None)
def test_numbers_that_are_none_do_not_upset_it_either(value: str, delay: str, quota_id: str) -> None:
    details: list[dict[str, Any]] = [
        {"violations": [{"quotaId": quota_id, "quotaValue": value}]},
        {"retryDelay": delay},
    ]
    refusal = read_refusal(429, content_of(errors.error(429, "RESOURCE_EXHAUSTED", "", *details)))

    assert refusal is not None
    until = cooldown_end(refusal, NOON, PACIFIC, 0)
    assert until is None or until >= NOON


@given(st.binary(max_size=300), st.sampled_from([400, 401, 402, 403, 429]))
@settings(max_examples=80, deadline=None)
def test_no_bytes_upset_the_reading(content: bytes, status: int) -> None:
    read_refusal(status, content)
    read_fault(status, content)
    message_in(content)


def test_a_message_is_one_short_line() -> None:
    content = content_of(errors.bad_request("one\n  two\tthree " + "x" * 500))

    message = message_in(content)

    assert message.startswith("one two three xxx")
    assert len(message) == 300


@pytest.mark.parametrize(
    ("refusal", "until"),
    [
        (Refusal(Window.DAY, 70_000), NOON + timedelta(seconds=70_000)),
        (Refusal(Window.DAY, 900), NOON + timedelta(seconds=900)),
        (Refusal(Window.DAY, 37.8), MIDNIGHT),
        (Refusal(Window.DAY, 0), MIDNIGHT),
        (Refusal(Window.DAY), MIDNIGHT),
        (Refusal(Window.MINUTE, 26), NOON + timedelta(seconds=26)),
        (Refusal(Window.MINUTE, 0.9), NOON + timedelta(seconds=0.9)),
        (Refusal(Window.MINUTE), NOON + timedelta(seconds=60)),
        (Refusal(Window.NONE), None),
        (Refusal(Window.NONE, 45), None),
        (Refusal(Window.CREDITS), None),
        (Refusal(Window.CREDITS, 45), None),
        (Refusal(Window.UNKNOWN, 12), NOON + timedelta(seconds=12)),
        (Refusal(Window.UNKNOWN), NOON + timedelta(seconds=60)),
    ],
)
def test_a_key_rests_as_long_as_the_refusal_says(refusal: Refusal, until: datetime | None) -> None:
    assert cooldown_end(refusal, NOON, PACIFIC, 0) == until


@pytest.mark.parametrize("window", [Window.MINUTE, Window.UNKNOWN])
def test_a_delay_of_nothing_still_is_a_rest(window: Window) -> None:
    """Otherwise the very next claim takes the same key, and is refused again."""
    until = cooldown_end(Refusal(window, 0), NOON, PACIFIC, 0)

    assert until is not None
    assert until > NOON


def test_a_refusal_that_says_nothing_rests_twice_as_long_each_time_up_to_the_reset() -> None:
    rests = [cooldown_end(Refusal(Window.UNKNOWN), NOON, PACIFIC, row) for row in range(40)]

    assert [rest - NOON for rest in rests[:10] if rest] == [timedelta(minutes=2**row) for row in range(10)]
    assert set(rests[10:]) == {MIDNIGHT}


@pytest.mark.parametrize(
    ("moment", "reset"),
    [
        # 8 March: the day has 23 hours, the clock goes forward at 2 o'clock.
        (datetime(2026, 3, 8, 0, 0, tzinfo=PACIFIC), datetime(2026, 3, 9, 7, 0, tzinfo=UTC)),
        (datetime(2026, 3, 8, 1, 59, tzinfo=PACIFIC), datetime(2026, 3, 9, 7, 0, tzinfo=UTC)),
        (datetime(2026, 3, 7, 23, 59, tzinfo=PACIFIC), datetime(2026, 3, 8, 8, 0, tzinfo=UTC)),
        # 1 November: the day has 25 hours, and its second hour comes twice.
        (datetime(2026, 11, 1, 0, 0, tzinfo=PACIFIC), datetime(2026, 11, 2, 8, 0, tzinfo=UTC)),
        (datetime(2026, 11, 1, 1, 30, tzinfo=PACIFIC, fold=0), datetime(2026, 11, 2, 8, 0, tzinfo=UTC)),
        (datetime(2026, 11, 1, 1, 30, tzinfo=PACIFIC, fold=1), datetime(2026, 11, 2, 8, 0, tzinfo=UTC)),
        (datetime(2026, 10, 31, 23, 59, tzinfo=PACIFIC), datetime(2026, 11, 1, 7, 0, tzinfo=UTC)),
    ],
)
def test_a_day_s_quota_comes_back_at_pacific_midnight_also_when_clocks_change(
    moment: datetime, reset: datetime
) -> None:
    for row in (moment, moment.astimezone(UTC)):
        assert cooldown_end(Refusal(Window.DAY), row, PACIFIC, 0) == reset


@pytest.mark.parametrize(
    "moment", [datetime(2026, 3, 8, 1, 30, tzinfo=PACIFIC), datetime(2026, 11, 1, 0, 30, tzinfo=PACIFIC)]
)
@pytest.mark.parametrize("refusal", [Refusal(Window.DAY, 7200), Refusal(Window.MINUTE, 3600), Refusal(Window.UNKNOWN)])
def test_a_rest_lasts_as_long_whatever_zone_the_moment_is_told_in(moment: datetime, refusal: Refusal) -> None:
    """Adding to a datetime with a time zone changes its wall-clock time, which is wrong after a clock change."""
    in_utc = cooldown_end(refusal, moment.astimezone(UTC), PACIFIC, 7)

    until = cooldown_end(refusal, moment, PACIFIC, 7)

    assert in_utc is not None
    assert until is not None
    assert until.astimezone(UTC) == in_utc
    assert until.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        (errors.suspended(SECRET, "895908428397"), "895908428397"),
        (
            errors.error(403, "PERMISSION_DENIED", "Permission denied: Consumer 'project_number:123456' has been"),
            "123456",
        ),
        (
            errors.error(
                403,
                "PERMISSION_DENIED",
                "Generative Language API has not been used in project 77012345 before or it is disabled.",
            ),
            "77012345",
        ),
        (errors.older_form(OLDER_PER_MINUTE, "60"), "391029737820"),
        (errors.error(429, "RESOURCE_EXHAUSTED", OLDER_WORDS), "391029737820"),
        (errors.invalid_key(), None),
        (errors.per_day_long(), None),
        (errors.html_429(), None),
        (errors.bad_request("You wrote projects/895908428397"), None),
        (errors.bad_request("Unknown name: 'Consumer project_number:895908428397'"), None),
    ],
)
def test_a_project_is_known_where_google_names_it_and_not_where_it_quotes_the_client(
    reply: Reply, number: str | None
) -> None:
    assert project_in(content_of(reply)) == number
    assert project_in(content_of(reply, in_array=True)) == number


def test_a_refusal_that_says_nothing_may_be_read_as_the_script_of_old_did() -> None:
    bare, delayed = Refusal(Window.UNKNOWN), Refusal(Window.UNKNOWN, 12)

    assert cooldown_end(bare, NOON, PACIFIC, 0, is_bare_for_the_day=True) == MIDNIGHT
    assert cooldown_end(delayed, NOON, PACIFIC, 0, is_bare_for_the_day=True) == NOON + timedelta(seconds=12)
