"""The life of a request, with a real HTTP upstream and a real database file."""

import gzip
import http.client
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from proxy.gemini.quota_day import next_reset
from proxy.ledger import Ledger
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, KeyState, Project, Quota, Use
from proxy.pool.adding import add_keys
from tests import gemini_errors as errors
from tests.conftest import (
    CHAT,
    FLASH,
    GENERATE,
    STREAM,
    TOKEN,
    Pool,
    ReplaceUpstream,
    answers_by_secret,
    ask,
    error_in,
    fake_secret,
    is_soon,
    nobodys_port,
    other_connection,
    usage_of_today,
)
from tests.fake_gemini import ANSWER_TOKENS, PROMPT_TOKENS, THOUGHT_TOKENS, FakeGemini, Fault, Reply

ONE, TWO, THREE = fake_secret("one"), fake_secret("two"), fake_secret("three")
PRO = "/v1beta/models/gemini-2.5-pro:generateContent"
COUNT = f"/v1beta/models/{FLASH}:countTokens"
UPLOAD = "/upload/v1beta/files"
INTERACTIONS = "/v1beta/interactions"


@pytest.fixture
def nobody_there(replace_upstream: ReplaceUpstream) -> None:
    replace_upstream(f"http://127.0.0.1:{nobodys_port()}")


@pytest.fixture
def short_patience(gemini: FakeGemini, replace_upstream: ReplaceUpstream) -> None:
    """Wait only 0.3 s for the upstream's next byte."""
    replace_upstream(gemini.url, 0.3)


# Keys that are refused


def test_an_exhausted_key_hands_over_to_the_next(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two", "three")
    gemini.exhaust(ONE, TWO)

    response = ask(client)

    assert response.status_code == 200
    assert gemini.secrets_seen == [ONE, TWO, THREE]


def test_a_refusal_and_an_answer_are_counted_each(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.exhaust(ONE)

    ask(client)
    usage_of_today()

    assert list(DailyUsage.objects.order_by("key").values_list("answers", "refusals", "model_name")) == [
        (0, 1, FLASH),
        (1, 0, FLASH),
    ]


@pytest.mark.parametrize(
    ("reply", "window", "seconds"),
    [
        (errors.per_minute_tokens(), "tokens", 26),
        (errors.quota_exceeded(FLASH, errors.Violation(errors.PER_MINUTE, 5), delay_seconds=26.4), "minute", 26.4),
        (errors.per_day_short(FLASH), "day", None),
        (errors.per_day_long(), "day", 70469.8),
        (errors.bare_429(), "unknown", 60),
        (errors.limit_zero(FLASH), "none", "for good"),
        (errors.depleted(), "credits", "for good"),
        (errors.spending_cap(), "credits", "for good"),
    ],
    ids=["tokens", "minute", "day, short delay", "day, long delay", "bare", "limit 0", "depleted", "spending cap"],
)
@pytest.mark.parametrize("path", [GENERATE, STREAM, CHAT], ids=["native", "SSE", "OpenAI"])
def test_each_kind_of_429_limits_the_key_for_its_time_and_the_next_key_answers(
    client: Client, gemini: FakeGemini, pool: Pool, *, reply: Reply, window: str, seconds: Any, path: str
) -> None:
    pool("one", "two")
    gemini.script(ONE, reply)
    moment = datetime.now(UTC)

    statuses = [ask(client, path, {"model": FLASH, "messages": []}).status_code for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert gemini.secrets_seen == [ONE, TWO, TWO, TWO]
    [event] = ExhaustionEvent.objects.all()
    assert (event.key.secret, event.window) == (ONE, window)
    assert event.model_name == ("" if window == "credits" else FLASH)
    if seconds == "for good":
        assert event.until is None
    else:
        until = moment + timedelta(seconds=seconds) if seconds else next_reset(moment, settings.QUOTA_ZONE)
        assert event.until is not None
        assert abs(event.until - until) < timedelta(seconds=3)


def test_a_refusal_limits_every_key_of_the_project_and_no_other(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two", project="shared")
    pool("three")
    gemini.exhaust(ONE, TWO)

    statuses = [ask(client).status_code for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert gemini.secrets_seen == [ONE, THREE, THREE, THREE]


def test_a_refusal_concerns_one_model_only(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.exhaust(ONE, model=FLASH)
    ask(client)
    gemini.seen.clear()

    statuses = [ask(client, path).status_code for path in (PRO, PRO, GENERATE, GENERATE)]

    assert statuses == [200, 200, 200, 200]
    assert Counter(gemini.secrets_seen[:2]) == {ONE: 1, TWO: 1}
    assert gemini.secrets_seen[2:] == [TWO, TWO]


def test_a_refusal_to_count_tokens_leaves_the_model_alone(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, errors.per_minute_tokens())
    assert ask(client, COUNT).status_code == 503

    assert ask(client).status_code == 200


@pytest.mark.parametrize("path", ["/v1beta/models", "/v1beta/files"])
def test_a_refused_call_without_a_model_limits_its_key_only_for_such_calls(
    client: Client, gemini: FakeGemini, pool: Pool, path: str
) -> None:
    pool("one", "two")
    gemini.script(ONE, errors.bare_429())

    for _ in range(3):
        response = client.get(path)
        response.getvalue()
        assert response.status_code == 200
    ask(client)
    ask(client)

    assert gemini.secrets_seen[:4] == [ONE, TWO, TWO, TWO]
    assert set(gemini.secrets_seen[4:]) == {ONE, TWO}


def test_a_key_without_credits_is_unavailable_for_every_model(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.script(ONE, errors.depleted())
    ask(client)
    gemini.seen.clear()

    for path in (PRO, PRO, GENERATE, "/v1beta/models", "/v1beta/models"):
        ask(client, path) if path.startswith("/v1beta/models/") else client.get(path).getvalue()

    assert set(gemini.secrets_seen) == {TWO}


def test_a_key_that_joins_a_project_shares_its_cooldown(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", project="shared")
    [late] = pool("two")
    gemini.exhaust(ONE)
    ask(client)

    ApiKey.objects.filter(pk=late.pk).move_to("shared", timezone.now())
    response = ask(client)

    assert response.status_code == 503
    assert gemini.secrets_seen == [ONE, TWO]


def test_a_key_returns_after_its_cooldown_and_is_first_in_the_rotation(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two", "three")
    gemini.script(ONE, errors.bare_429())
    for _ in range(3):
        ask(client)

    with time_machine.travel(timezone.now() + timedelta(seconds=61), tick=True):
        for _ in range(3):
            ask(client)

    assert gemini.secrets_seen == [ONE, TWO, THREE, TWO, ONE, THREE, TWO]


def test_a_refusal_without_a_reason_doubles_the_cooldown_until_an_answer(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    moment, retries_after = timezone.now(), []

    for reply in (errors.bare_429(), errors.bare_429(), errors.bare_429(), Reply(200, {}), errors.bare_429()):
        gemini.script(ONE, reply)
        with time_machine.travel(moment, tick=False):
            response = ask(client)
        if response.status_code == 503:
            retries_after.append(int(response.headers["Retry-After"]))
            moment += timedelta(seconds=retries_after[-1] + 1)

    assert retries_after == [60, 120, 240, 60]


def test_a_refusal_without_a_reason_can_exhaust_the_day(
    client: Client, gemini: FakeGemini, pool: Pool, service: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "bare_429_is_for_the_day", True)  # BARE_429=day
    pool("one", "two")
    gemini.script(ONE, errors.bare_429())
    gemini.script(TWO, errors.per_minute_tokens())
    reset = next_reset(timezone.now(), settings.QUOTA_ZONE)

    response = ask(client)

    assert response.headers["Retry-After"] == "26"  # who tells a time is believed
    assert ExhaustionEvent.objects.get(window="unknown").until == reset


def test_each_key_is_tried_once_at_most(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two", "three")
    gemini.script("*", *[errors.bare_429()] * 9)

    response = ask(client)

    assert response.status_code == 503
    assert sorted(gemini.secrets_seen) == sorted([ONE, TWO, THREE])


def test_a_page_that_blames_our_address_goes_back_as_it_is_and_costs_no_key_its_place(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two")
    gemini.script("*", errors.html_429())

    response = ask(client)

    assert (response.status_code, response.body) == (429, errors.html_429().body)
    assert response.headers["Content-Type"] == "text/html; charset=UTF-8"
    assert len(gemini.seen) == 1
    assert not ExhaustionEvent.objects.exists()


def test_a_429_that_is_handed_on_is_not_counted_as_an_answer(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script("*", errors.html_429())

    ask(client)

    assert answers_by_secret() == {}
    assert usage_of_today() == {"refusals": 1}


# Keys that are bad


@pytest.mark.parametrize("path", [GENERATE, STREAM, CHAT], ids=["native", "SSE", "OpenAI"])
@pytest.mark.parametrize(
    ("reply", "fault", "words"),
    [
        (errors.invalid_key(), "invalid", "API key not valid"),
        (errors.invalid_key("API Key not found. Please pass a valid API key."), "invalid", "API Key not found"),
        (errors.expired_key(), "expired", "API key expired"),
        (errors.suspended(ONE), "suspended", "has been suspended"),
        (errors.leaked(), "leaked", "reported as leaked"),
        (errors.denied(), "denied", "denied access"),
        (errors.service_blocked(), "blocked", "are blocked"),
        (errors.service_disabled(), "blocked", "it is disabled"),
        (errors.wrong_credential_type(), "invalid", "invalid authentication credentials"),
    ],
    ids=["invalid", "not found", "expired", "suspended", "leaked", "denied", "blocked", "disabled", "wrong type"],
)
def test_a_bad_key_leaves_the_rotation_with_its_reason_and_the_next_answers(
    client: Client, gemini: FakeGemini, pool: Pool, *, reply: Reply, fault: str, words: str, path: str
) -> None:
    [bad, _] = pool("one", "two")
    gemini.script(ONE, reply)

    statuses = [ask(client, path, {"model": FLASH, "messages": []}).status_code for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert gemini.secrets_seen == [ONE, TWO, TWO, TWO]
    bad.refresh_from_db()
    assert (bad.state, bad.fault) == (KeyState.BAD, fault)
    assert words in bad.fault_reason
    assert answers_by_secret() == {ONE: 1, TWO: 3}


def test_a_pool_of_bad_keys_reports_that_keys_must_be_revived(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.script(ONE, errors.leaked())
    gemini.script(TWO, errors.invalid_key())

    responses = [ask(client), ask(client)]

    assert [response.status_code for response in responses] == [503, 503]
    assert "no usable key" in error_in(responses[0])["message"]
    assert gemini.secrets_seen == [ONE, TWO]


# Projects


def consumer(number: str) -> dict[str, Any]:
    info = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": info, "reason": "RATE_LIMIT_EXCEEDED", "metadata": {"consumer": f"projects/{number}"}}


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        (errors.suspended(ONE, "123456789"), "123456789"),
        (errors.service_disabled(), "895908428397"),
        (errors.service_blocked(), "895908428397"),
        (errors.error(429, "RESOURCE_EXHAUSTED", "Too many.", consumer("4711")), "4711"),
        (errors.error(403, "PERMISSION_DENIED", "Not for you.", consumer("4711")), "4711"),
    ],
    ids=["suspended", "disabled", "blocked", "429", "error of the request"],
)
def test_an_error_that_names_the_project_sets_the_project_of_the_key(
    client: Client, gemini: FakeGemini, pool: Pool, reply: Reply, number: str
) -> None:
    [key, other] = pool("one", "two")
    gemini.script(ONE, reply)

    ask(client)
    usage_of_today()

    key.refresh_from_db()
    other.refresh_from_db()
    assert key.project.name == number
    assert other.project.name == ""
    assert Project.objects.count() == 2


def test_a_project_that_a_person_named_is_believed_before_an_error(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    [key] = pool("one", project="ours")
    gemini.script(ONE, errors.suspended(ONE))

    ask(client)
    usage_of_today()

    key.refresh_from_db()
    assert key.project.name == "ours"


def test_keys_whose_errors_name_one_project_share_its_cooldowns_from_then_on(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two", "three")
    refused = errors.error(403, "PERMISSION_DENIED", "Not for you.", consumer("4711"))
    gemini.script(ONE, refused)
    gemini.script(TWO, refused)
    for _ in range(3):
        ask(client)
    gemini.exhaust(ONE, TWO)

    statuses = [ask(client).status_code for _ in range(6)]

    assert statuses == [200] * 6
    assert len([secret for secret in gemini.secrets_seen[3:] if secret != THREE]) == 1
    assert set(gemini.secrets_seen[-4:]) == {THREE}


# Requests that are bad


@pytest.mark.parametrize(
    "reply",
    [
        errors.bad_request(),
        errors.bad_request("Thought signature is not valid"),
        errors.unknown_model("gemini-3.6-flahs"),
        errors.two_credentials(),
        errors.location(),
        errors.error(403, "PERMISSION_DENIED", "You do not have permission to access the File abc or it may not be."),
        errors.error(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)"),
        errors.not_found(),
        errors.error(499, "CANCELLED", "The operation was cancelled."),
        Reply(400, b"{not json", {"Content-Type": "application/json"}),
        Reply(403, b"<html>Forbidden</html>", {"Content-Type": "text/html"}),
        Reply(400, b"[]", {"Content-Type": "application/json"}),
        Reply(404, b"", {"Content-Type": "application/json"}),
        Reply(502, b"Bad gateway", {"Content-Type": "text/plain"}),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_an_error_of_the_request_goes_back_as_it_is_and_costs_no_key_its_place(
    client: Client, gemini: FakeGemini, pool: Pool, reply: Reply, encoding: str
) -> None:
    pool("one", "two")
    ask(client)  # the model is known: a 404 speaks of the request
    gemini.script("*", reply)

    response = ask(client, headers={"accept-encoding": encoding})
    later = [ask(client).status_code for _ in range(2)]

    is_compressed = response.headers.get("Content-Encoding") == "gzip"
    content = gzip.decompress(response.body) if is_compressed else response.body
    assert response.status_code == reply.status
    assert (content if isinstance(reply.body, bytes) else json.loads(content)) == reply.body
    assert is_compressed == (encoding == "gzip" and isinstance(reply.body, dict))
    assert response.headers["Content-Length"] == str(len(response.body))
    assert later == [200, 200]
    assert gemini.secrets_seen == [ONE, TWO, ONE, TWO]
    assert ApiKey.objects.usable().count() == 2
    assert usage_of_today()["errors"] == 1


def test_an_error_larger_than_any_google_sends_still_goes_back_whole(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    page = b"<p>" + b"0123456789abcdef" * 100_000 + b"</p>"
    gemini.script("*", Reply(404, page, {"Content-Type": "text/html"}))

    response = ask(client)

    assert response.status_code == 404
    assert response.body == page


# An upstream that has trouble


@pytest.mark.parametrize("trouble", [errors.overloaded(), errors.internal(), errors.deadline()])
@pytest.mark.parametrize(("names", "secrets"), [(["one"], [ONE, ONE]), (["one", "two"], [ONE, TWO])])
def test_an_overloaded_upstream_is_retried_with_the_next_key(
    client: Client, gemini: FakeGemini, pool: Pool, *, trouble: Reply, names: list[str], secrets: list[str]
) -> None:
    pool(*names)
    gemini.script(ONE, trouble)

    response = ask(client)

    assert response.status_code == 200
    assert gemini.secrets_seen == secrets
    assert answers_by_secret() == Counter(secrets)
    assert usage_of_today()["errors"] == 1
    assert ApiKey.objects.usable().count() == len(names)


@pytest.mark.parametrize("trouble", [errors.overloaded(), errors.internal(), errors.deadline()])
def test_an_upstream_that_stays_overloaded_is_tried_three_times_and_its_answer_passed_on(
    client: Client, gemini: FakeGemini, pool: Pool, trouble: Reply
) -> None:
    pool("one", "two")
    gemini.script("*", *[trouble] * 5)

    response = ask(client)

    assert (response.status_code, json.loads(response.body)) == (trouble.status, trouble.body)
    assert len(gemini.seen) == 3
    assert sum(answers_by_secret().values()) == sum(gemini.accepted.values()) == 3
    assert ApiKey.objects.usable().count() == 2


@pytest.mark.parametrize(
    "path", [UPLOAD, INTERACTIONS, "/v1beta/batches", "/v1beta/openai/batches", "/v1beta/models/m:predict"]
)
def test_requests_that_are_not_safe_to_retry_are_not_retried(
    client: Client, gemini: FakeGemini, pool: Pool, path: str
) -> None:
    pool("one", "two")
    gemini.script("*", *[errors.overloaded()] * 2)

    response = ask(client, path)

    assert response.status_code == 503
    assert len(gemini.seen) == 1


def test_an_upstream_out_of_reach_is_a_502_in_geminis_shape(client: Client, pool: Pool, nobody_there: None) -> None:
    pool("one")

    response = ask(client)

    assert response.status_code == 502
    error = error_in(response)
    assert (error["code"], error["status"]) == (502, "UNAVAILABLE")
    assert "cannot reach" in error["message"]
    assert usage_of_today() == {}
    quota = Quota.objects.get(model_name=FLASH)
    assert (quota.minute_requests, quota.minute_tokens, quota.day_requests) == (0, 0, 0)


def test_a_request_that_never_reached_google_uses_no_quota(
    client: Client, gemini: FakeGemini, pool: Pool, *, replace_upstream: ReplaceUpstream, settings: Settings
) -> None:
    settings.MAX_WAIT_SECONDS = 0
    pool("one")
    GeminiModel.objects.begin(FLASH)
    Quota.objects.filter(model_name=FLASH).set_limits(timezone.now(), requests_per_minute=3, requests_per_day=3)
    replace_upstream(f"http://127.0.0.1:{nobodys_port()}")
    assert [ask(client).status_code for _ in range(3)] == [502, 502, 502]

    replace_upstream(gemini.url)
    statuses = [ask(client).status_code for _ in range(4)]

    assert statuses == [200, 200, 200, 503]


def test_a_model_that_google_does_not_know_leaves_nothing_behind(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two")

    statuses = [ask(client, f"/v1beta/models/unknown-{number}:generateContent").status_code for number in range(5)]

    assert statuses == [404] * 5
    assert not GeminiModel.objects.exists()
    assert not Quota.objects.of_models().exists()
    assert not Use.objects.exists()


def test_a_silent_upstream_is_a_504_without_a_retry(
    client: Client, gemini: FakeGemini, pool: Pool, short_patience: None
) -> None:
    pool("one", "two")
    gemini.script("*", Fault.HANG)

    response = ask(client)

    assert response.status_code == 504
    assert error_in(response)["status"] == "DEADLINE_EXCEEDED"
    assert len(gemini.seen) == 1
    assert usage_of_today() == {"answers": 1, "errors": 1}


def test_a_connection_lost_before_the_answer_is_a_502_without_a_retry(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two")
    gemini.script("*", Fault.RESET_BEFORE)

    response = ask(client)

    assert response.status_code == 502
    assert error_in(response)["status"] == "UNAVAILABLE"
    assert len(gemini.seen) == 1
    assert usage_of_today() == {"answers": 1, "errors": 1}


@pytest.mark.parametrize("path", [GENERATE, STREAM], ids=["single", "stream"])
def test_an_answer_that_breaks_off_breaks_off_for_the_client_too_and_is_counted(
    client: Client, gemini: FakeGemini, pool: Pool, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    pool("one", "two")
    gemini.script("*", Fault.RESET_MIDDLE)
    response = client.post(path, "{}", content_type="application/json")
    received = []

    with pytest.raises(ConnectionError):
        received.extend(response.streaming_content)  # type: ignore[attr-defined]

    assert response.status_code == 200
    assert len(gemini.seen) == 1
    assert answers_by_secret() == {ONE: 1}
    assert len(caplog.records) <= 1


def test_silence_in_the_middle_of_a_stream_ends_it_and_it_stays_counted(
    client: Client, gemini: FakeGemini, pool: Pool, short_patience: None
) -> None:
    pool("one")
    gemini.hold = Event()
    response = client.post(STREAM, "{}", content_type="application/json")

    with pytest.raises(ConnectionError):
        list(response.streaming_content)  # type: ignore[attr-defined]

    assert gemini.wait_for(lambda: gemini.closed_early == 1)
    assert answers_by_secret() == {ONE: 1}


def test_an_error_that_breaks_off_is_a_502_and_counted(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script("*", Fault.RESET_MIDDLE)

    response = ask(client, "/v1beta/models/unknown-model:generateContent")

    assert response.status_code == 502
    assert error_in(response)["status"] == "UNAVAILABLE"
    assert sum(answers_by_secret().values()) == sum(gemini.accepted.values()) == 1


def test_fail_overs_end_when_the_time_for_the_request_is_up(
    client: Client, gemini: FakeGemini, pool: Pool, *, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    pool("one", "two", "three")
    gemini.exhaust(ONE, TWO)
    settings.DEADLINE_SECONDS = 30
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + (31 if gemini.seen else 0))
    monkeypatch.setattr("proxy.journey.time", clock)

    response = ask(client)

    assert response.status_code == 504
    assert error_in(response)["status"] == "DEADLINE_EXCEEDED"
    assert gemini.secrets_seen == [ONE]


# No key left


def test_a_limited_pool_reports_when_the_first_key_is_available_again(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two")
    gemini.script(ONE, errors.per_day_long())
    gemini.script(TWO, errors.per_minute_tokens())

    response = ask(client)
    again = ask(client)

    assert (response.status_code, again.status_code) == (503, 503)
    error = error_in(response)
    assert (error["code"], error["status"]) == (503, "UNAVAILABLE")
    assert f"All keys for {FLASH} are rate-limited. The next one is available in 26 seconds" in error["message"]
    assert error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}]
    assert response.headers["Retry-After"] == "26"
    assert "x-should-retry" not in response.headers
    assert len(gemini.seen) == 2


def test_clients_are_told_not_to_retry_if_the_wait_is_long(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.exhaust(ONE)

    response = ask(client)

    assert response.headers["x-should-retry"] == "false"
    assert 70_400 < int(response.headers["Retry-After"]) <= 70_470
    assert "in 19 hours 34 minutes" in error_in(response)["message"]


def test_the_status_of_a_limited_pool_can_be_429(
    client: Client, gemini: FakeGemini, pool: Pool, settings: Settings
) -> None:
    settings.EXHAUSTED_STATUS = 429
    pool("one")
    gemini.exhaust(ONE)

    response = ask(client)

    assert response.status_code == 429
    assert error_in(response)["status"] == "RESOURCE_EXHAUSTED"


def test_a_pool_that_is_limited_very_briefly_still_reports_a_time(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two")
    blink = errors.quota_exceeded(FLASH, errors.Violation(errors.PER_MINUTE, 5), delay_seconds=0.000001)
    gemini.script("*", blink, blink)

    response = ask(client)

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert ask(client).status_code == 200


def test_a_pool_that_must_be_revived_manually_reports_no_time(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, errors.depleted())

    response = ask(client)

    assert response.status_code == 503
    assert "Retry-After" not in response.headers
    assert response.headers["x-should-retry"] == "false"
    assert "until one is revived manually" in error_in(response)["message"]


@pytest.mark.parametrize("state", ["empty", "disabled", "deleted"])
def test_a_pool_without_keys_says_so(client: Client, gemini: FakeGemini, pool: Pool, state: str) -> None:
    if state != "empty":
        pool("one")
        getattr(ApiKey.objects.all(), {"disabled": "disable", "deleted": "forget"}[state])(timezone.now())

    response = ask(client)

    assert response.status_code == 503
    assert "no usable key" in error_in(response)["message"]
    assert not gemini.seen


# Rotation


def test_keys_take_turns_in_a_fixed_order(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    names = ["one", "two", "three", "four", "five"]
    pool(*names)

    for _ in range(20):
        ask(client)

    assert gemini.secrets_seen == [fake_secret(name) for name in names] * 4


def test_keys_take_turns_evenly_with_many_threads_at_once_and_every_answer_is_counted(
    gemini: FakeGemini, pool: Pool
) -> None:
    pool("one", "two", "three", "four")
    GeminiModel.objects.begin(FLASH)
    Quota.objects.update(most_in_a_minute=1000)  # all have the same proven room
    threads = Barrier(16)

    def ask_ten_times() -> None:
        client = Client(headers={"x-goog-api-key": TOKEN})
        threads.wait()
        for _ in range(10):
            assert ask(client).status_code == 200

    with ThreadPoolExecutor(16) as executor:
        for done in [executor.submit(ask_ten_times) for _ in range(16)]:
            done.result()

    assert Counter(gemini.secrets_seen) == dict.fromkeys(map(fake_secret, ["one", "two", "three", "four"]), 40)
    assert answers_by_secret() == {secret: count for (secret, _), count in gemini.accepted.items()}
    assert usage_of_today()["output_tokens"] == 160 * ANSWER_TOKENS


def test_counts_are_exact_with_many_threads_while_keys_run_out(gemini: FakeGemini, pool: Pool) -> None:
    keys = pool(*[f"key-{number}" for number in range(8)])
    for key in keys:
        gemini.know(key.secret or "")
    gemini.limit(per_day=12)
    threads = Barrier(16)

    def ask_eight_times() -> list[int]:
        client = Client(headers={"x-goog-api-key": TOKEN})
        threads.wait()
        return [ask(client).status_code for _ in range(8)]

    with ThreadPoolExecutor(16) as executor:
        done = [executor.submit(ask_eight_times) for _ in range(16)]
        statuses = Counter(status for each in done for status in each.result())

    assert statuses == {200: 96, 503: 32}
    assert answers_by_secret() == {key.secret: 12 for key in keys}
    assert answers_by_secret() == {secret: count for (secret, _), count in gemini.accepted.items()}
    assert sum(gemini.accepted.values()) + usage_of_today()["refusals"] == len(gemini.seen)


def test_a_new_key_is_first_in_the_rotation(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.script(ONE, errors.per_minute_tokens("other"))  # gives the model a rotation of its own
    ask(client)
    ask(client)

    pool("three")
    ask(client)

    assert gemini.secrets_seen == [ONE, TWO, TWO, THREE]


def test_the_rotation_stays_even_when_the_clock_is_set_back(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two", "three")
    for _ in range(3):
        ask(client)

    with time_machine.travel(timezone.now() - timedelta(hours=1), tick=True):
        for _ in range(6):
            ask(client)

    assert Counter(gemini.secrets_seen) == {ONE: 3, TWO: 3, THREE: 3}


# Counting


def test_an_answer_is_on_disk_before_its_first_byte_is_handed_out(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    gemini.hold = Event()

    response = client.post(STREAM, "{}", content_type="application/json")
    with closing(other_connection()) as other:
        rows = other.execute("SELECT answers, errors, output_tokens FROM proxy_dailyusage").fetchall()
    gemini.hold.set()
    content = response.getvalue()

    assert rows == [(1, 0, 0)]
    assert content.count(b"data: ") == 3


def test_the_first_event_of_a_stream_arrives_while_the_last_is_held_back(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    gemini.hold = Event()
    response = client.post(STREAM, "{}", content_type="application/json")
    events = iter(response.streaming_content)  # type: ignore[attr-defined]

    first = next(events)
    gemini.hold.set()
    rest = b"".join(events)

    assert first.startswith(b"data: {")
    assert (first + rest).count(b"\r\n\r\n") == 3


@pytest.mark.parametrize("port_of", ["front", "runserver"])
def test_the_first_event_arrives_through_a_real_server_while_the_last_is_held_back(
    request: pytest.FixtureRequest, gemini: FakeGemini, pool: Pool, port_of: str
) -> None:
    pool("one")
    gemini.hold = Event()
    connection = http.client.HTTPConnection("127.0.0.1", request.getfixturevalue(port_of), timeout=5)
    with closing(connection):
        connection.request("POST", STREAM, b"{}", {"x-goog-api-key": TOKEN})
        answer = connection.getresponse()

        first = answer.readline()
        gemini.hold.set()
        rest = answer.read()

    assert answer.getheader("Content-Type") == "text/event-stream"
    assert first.startswith(b"data: {")
    assert (first + rest).count(b"\r\n\r\n") == 3


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATE, {}),
        (STREAM, {}),
        (STREAM.removesuffix("?alt=sse"), {}),
        (CHAT, {"model": FLASH, "messages": []}),
        (CHAT, {"model": FLASH, "messages": [], "stream": True}),
        ("/v1/chat/completions", {"messages": [], "stream": True, "model": f"models/{FLASH}"}),
        (INTERACTIONS, {"model": FLASH, "input": "Hello"}),
        (INTERACTIONS, {"model": FLASH, "input": "Hello", "stream": True}),
    ],
    ids=["single", "SSE", "array", "chat", "chat stream", "chat stream of OpenAI's path", "interaction", "its stream"],
)
def test_the_tokens_of_an_answer_are_booked_whatever_its_form(
    client: Client, gemini: FakeGemini, pool: Pool, *, path: str, body: dict[str, Any], encoding: str
) -> None:
    pool("one")
    gemini.chunks, gemini.pace = 3, 0.01  # so that events come one by one

    response = ask(client, path, body or {"contents": []}, headers={"accept-encoding": encoding})

    assert response.status_code == 200
    assert usage_of_today() == {
        "answers": 1,
        "prompt_tokens": PROMPT_TOKENS,
        "output_tokens": ANSWER_TOKENS,
        "thinking_tokens": THOUGHT_TOKENS,
    }
    assert DailyUsage.objects.get().model_name == FLASH


def test_a_stream_that_its_client_leaves_is_cut_upstream_and_its_tokens_so_far_are_booked(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    gemini.hold = Event()
    response = client.post(STREAM, "{}", content_type="application/json")
    events = iter(response.streaming_content)  # type: ignore[attr-defined]
    next(events)

    del events
    response.close()

    assert gemini.wait_for(lambda: gemini.closed_early == 1)
    usage = usage_of_today()
    assert (usage["answers"], usage["prompt_tokens"]) == (1, PROMPT_TOKENS)
    assert 0 < usage["output_tokens"] < ANSWER_TOKENS


def test_a_client_that_hangs_up_on_a_real_server_ends_the_answer_upstream(
    front: int, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    gemini.chunks, gemini.pace = 1000, 0.01
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=5)
    connection.request("POST", STREAM, b"{}", {"x-goog-api-key": TOKEN})
    answer = connection.getresponse()
    answer.readline()

    answer.close()
    connection.close()

    assert gemini.wait_for(lambda: gemini.closed_early == 1)
    assert is_soon(lambda: usage_of_today().get("prompt_tokens"))
    assert usage_of_today()["answers"] == 1


def test_an_answer_closed_twice_has_its_tokens_booked_once(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    response = ask(client)

    response.close()
    response.close()

    assert usage_of_today()["output_tokens"] == ANSWER_TOKENS


@pytest.mark.parametrize("change", ["forget", "disable"])
def test_a_key_that_goes_while_its_answer_streams_keeps_its_count_and_stays_gone(
    client: Client, gemini: FakeGemini, pool: Pool, change: str
) -> None:
    [key] = pool("one")
    gemini.hold = Event()
    response = client.post(STREAM, "{}", content_type="application/json")

    getattr(ApiKey.objects.all(), change)(timezone.now())
    gemini.hold.set()
    content = response.getvalue()

    assert content.count(b"\r\n\r\n") == 3
    assert usage_of_today()["output_tokens"] == ANSWER_TOKENS
    key.refresh_from_db()
    assert key.state == {"forget": KeyState.DELETED, "disable": KeyState.DISABLED}[change]
    assert ask(client).status_code == 503


@pytest.mark.parametrize("path", ["/v1beta/models", "/v1beta/models?pageSize=2", f"/v1/models/{FLASH}", "/v1/models"])
def test_calls_that_ask_no_model_are_relayed_and_counted_too(
    client: Client, gemini: FakeGemini, pool: Pool, path: str
) -> None:
    pool("one")

    response = client.get(path)
    response.getvalue()

    assert response.status_code == 200
    assert [(seen.method, seen.path) for seen in gemini.seen] == [("GET", path)]
    assert answers_by_secret() == {ONE: 1}


def test_a_request_that_cannot_be_sent_is_the_clients_mistake_and_not_counted(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")

    response = ask(client, headers={"x-odd": "a\0b"})

    assert response.status_code == 400
    assert not gemini.seen
    assert usage_of_today() == {}


# What is handed on


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_is_relayed(client: Client, gemini: FakeGemini, pool: Pool, method: str) -> None:
    pool("one")
    gemini.script(ONE, Reply(200, b"as it is", {"Content-Type": "text/x-odd; charset=latin-9"}))

    response = client.generic(method, "/v1beta/cachedContents/abc?updateMask=ttl", b"" if method == "GET" else b"{}")
    body = response.getvalue()

    [seen] = gemini.seen
    assert (seen.method, seen.path) == (method, "/v1beta/cachedContents/abc?updateMask=ttl")
    assert seen.body == (b"" if method == "GET" else b"{}")
    assert response.status_code == 200
    assert body == (b"" if method == "HEAD" else b"as it is")
    assert response.headers["Content-Type"] == "text/x-odd; charset=latin-9"
    assert response.headers["Content-Length"] == "8"


def test_the_head_of_an_error_is_that_of_the_error(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, Reply(404, b"Not here", {"Content-Type": "text/plain"}))

    response = client.head("/v1beta/cachedContents/abc")

    assert (response.status_code, response.getvalue()) == (404, b"")
    assert response.headers["Content-Length"] == "8"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_handed_on(client: Client, gemini: FakeGemini, pool: Pool, status: int) -> None:
    pool("one")
    gemini.script(ONE, Reply(status, b"", {"ETag": '"abc"'}))

    responses = [client.delete("/v1beta/files/abc"), client.get("/v1beta/models")]

    assert [response.status_code for response in responses] == [status, 200]
    assert [bool(response.getvalue()) for response in responses] == [False, True]
    assert responses[0].headers["ETag"] == '"abc"'


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_handed_back_and_not_followed(
    client: Client, gemini: FakeGemini, pool: Pool, status: int
) -> None:
    pool("one")
    gemini.script(ONE, Reply(status, b"", {"Location": f"{gemini.url}/v1beta/models"}))

    response = ask(client)

    assert (response.status_code, response.headers["Location"]) == (status, f"{gemini.url}/v1beta/models")
    assert len(gemini.seen) == 1


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_048_576, 3_000_000])
def test_bodies_pass_byte_for_byte_in_both_directions(front: int, gemini: FakeGemini, pool: Pool, size: int) -> None:
    pool("one")
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    gemini.script(ONE, Reply(200, content[::-1], {"Content-Type": "application/octet-stream"}))
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=5)

    with closing(connection):
        connection.request("POST", UPLOAD, content, {"x-goog-api-key": TOKEN, "Content-Type": "image/png"})
        answer = connection.getresponse()
        received = answer.read()

    assert gemini.seen[0].body == content
    assert gemini.seen[0].header("content-type") == "image/png"
    assert received == content[::-1]
    assert answer.getheader("Content-Length") == str(size)


def test_a_compressed_answer_is_passed_on_unchanged(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    compressed = gzip.compress(b'{"a": 1}', compresslevel=1, mtime=7)
    gemini.script(ONE, Reply(200, compressed, {"Content-Encoding": "gzip"}))

    response = ask(client, headers={"accept-encoding": "gzip"})

    assert response.body == compressed
    assert response.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("size", [10, 900_000, 3_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_fail_over_sends_the_same_body_again(
    front: int, gemini: FakeGemini, pool: Pool, size: int, is_chunked: bool
) -> None:
    pool("one", "two", "three")
    gemini.exhaust(ONE, TWO)
    body = json.dumps({"contents": "x" * size}).encode()
    pieces = iter([body[:7], body[7:]]) if is_chunked else body
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=5)

    with closing(connection):
        connection.request("POST", GENERATE, pieces, {"x-goog-api-key": TOKEN})
        answer = connection.getresponse()
        answer.read()

    assert answer.status == 200
    assert [seen.body for seen in gemini.seen] == [body] * 3
    assert gemini.secrets_seen == [ONE, TWO, THREE]


def test_a_large_body_is_sent_again_whole_when_the_upstream_is_overloaded(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    gemini.script(ONE, errors.overloaded())

    response = ask(client, body={"contents": "x" * 2_000_000})

    assert response.status_code == 200
    assert gemini.seen[0].body == gemini.seen[1].body


def test_the_model_of_a_large_body_is_found_at_its_end(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")

    ask(client, CHAT, {"messages": [{"content": "x" * 3_000_000}], "model": "gemini-2.5-pro"})
    answers_by_secret()

    assert DailyUsage.objects.get().model_name == "gemini-2.5-pro"


def test_keys_that_were_added_twice_are_one(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    add_keys([ONE, ONE], timezone.now())

    for _ in range(4):
        ask(client)

    assert gemini.secrets_seen == [ONE, TWO, ONE, TWO]


# Paths that are no call of a model


def test_requests_that_can_be_no_call_of_a_model_spend_nothing_of_its_quota(
    client: Client, gemini: FakeGemini, pool: Pool
) -> None:
    pool("one")
    gemini.script("*", *[Reply(404, b"<html>Not Found</html>", {"Content-Type": "text/html"})] * 4)
    GeminiModel.objects.begin(FLASH)
    Quota.objects.filter(model_name=FLASH).set_limits(timezone.now(), requests_per_minute=2, requests_per_day=2)
    odd = [f"/v1beta/models/{FLASH}:generateContents", f"/v1beta/models/{FLASH}:newOne", f"/v1beta/models/{FLASH}"]

    for path in [*odd, "/gemini/nothing", "/v1/messages", "/", f"/v1beta/models/{FLASH}/x/y", "/v1/models"]:
        assert ask(client, path).status_code == 404
    client.get(GENERATE).getvalue()
    answers = [ask(client), ask(client)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.headers["X-Keys-Tried"] for answer in answers] == ["1", "1"]
    assert ask(client).status_code == 503  # the quota is as small as it was made


@pytest.mark.parametrize("trouble", [errors.overloaded(), Reply(503, b"<html>", {"Content-Type": "text/html"})])
def test_an_error_for_a_call_without_a_model_limits_no_model(
    client: Client, gemini: FakeGemini, pool: Pool, trouble: Reply
) -> None:
    pool("one")
    ask(client)
    gemini.script("*", *[trouble] * 8)

    for _ in range(8):
        assert ask(client, f"/v1beta/models/{FLASH}:newOne").status_code == 503

    assert not GeminiModel.objects.exclude(overloads=0).exists()
    assert ask(client).status_code == 200
