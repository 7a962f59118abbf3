"""The journey of a request: it waits for a key, and headers of its response report what happened."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from proxy.gemini.refusals import Refusal, Window
from proxy.ledger import Ledger
from proxy.models import ApiKey, GeminiModel, Quota
from tests import gemini_errors as errors
from tests.conftest import FLASH, GENERATE, STREAM, TOKEN, Pool, ask, claim_of, error_in, fake_secret, is_soon
from tests.fake_gemini import FakeGemini, Reply

ONE, TWO = fake_secret("one"), fake_secret("two")
PRO = "/v1beta/models/gemini-2.5-pro:generateContent"

Ask = Callable[..., "Future[Any]"]


def back_in(seconds: float) -> Reply:
    """Return a 429 for requests per minute, with this delay in seconds."""
    return errors.quota_exceeded(FLASH, errors.Violation(errors.PER_MINUTE, 100), delay_seconds=seconds)


def rest(ledger: Ledger, *, seconds: float) -> None:
    """Let the next key be rate-limited for this long."""
    ledger.book_refusal(claim_of(ledger), Refusal(Window.MINUTE, seconds))


def waiting_in(ledger: Ledger) -> int:
    """Return how many requests wait. The ledger may change its lines at the same time."""
    return sum(len(line.waiting) for line in list(ledger._writer._waiting._lines.values()))


def waited_seconds(response: Any) -> float:
    return float(response.headers["X-Waited-Seconds"])


@pytest.fixture
def ask_soon() -> Iterator[Ask]:
    """Send a request in a separate thread, as another client."""
    with ThreadPoolExecutor(20) as executor:

        def ask_in_thread(*args: Any, **kwargs: Any) -> Any:
            return ask(Client(headers={"x-goog-api-key": TOKEN}), *args, **kwargs)

        yield lambda *args, **kwargs: executor.submit(ask_in_thread, *args, **kwargs)


# Waiting for a key


def test_a_request_waits_for_a_key_that_is_available_soon(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, back_in(0.5))

    response = ask(client)

    assert response.status_code == 200
    assert gemini.secrets_seen == [ONE, ONE]
    assert response.headers["X-Keys-Tried"] == "2"
    assert 0.3 < waited_seconds(response) < 5
    assert gemini.decisions[1].moment - gemini.decisions[0].moment >= 0.5


def test_a_waiting_request_gets_the_first_key_that_is_available(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.script(ONE, back_in(15))
    gemini.script(TWO, back_in(0.5))

    response = ask(client)

    assert response.status_code == 200
    assert gemini.secrets_seen == [ONE, TWO, TWO]


def test_a_request_that_waits_takes_a_key_that_is_added_or_revived_meanwhile(
    gemini: FakeGemini, pool: Pool, service: Ledger, ask_soon: Ask
) -> None:
    pool("one")
    rest(service, seconds=15)
    asking = ask_soon()
    assert is_soon(lambda: waiting_in(service) == 1)

    pool("two")

    assert asking.result().status_code == 200
    assert gemini.secrets_seen == [TWO]
    rest(service, seconds=15)
    asking = ask_soon()
    assert is_soon(lambda: waiting_in(service) == 1)
    ApiKey.objects.filter(secret=ONE).revive(timezone.now())
    assert asking.result().status_code == 200
    assert gemini.secrets_seen == [TWO, ONE]


def test_a_request_that_did_not_wait_reports_that(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.exhaust(ONE)

    response = ask(client)

    assert response.headers["X-Keys-Tried"] == "2"
    assert response.headers["X-Waited-Seconds"] == "0.000"


def test_a_longer_cooldown_is_not_waited_for(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, back_in(26))
    began = time.monotonic()

    response = ask(client)

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "26"
    assert waited_seconds(response) < 1
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("is_client", [True, False], ids=["X-Server-Timeout", "MAX_WAIT_SECONDS"])
def test_a_request_that_cannot_wait_that_long_gets_a_retry_after_at_once(
    client: Client, gemini: FakeGemini, pool: Pool, *, settings: Settings, is_client: bool
) -> None:
    pool("one")
    gemini.script(ONE, back_in(10))
    if not is_client:
        settings.MAX_WAIT_SECONDS = 4
    began = time.monotonic()

    response = ask(client, headers={"x-server-timeout": "4"} if is_client else {})

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "10"
    assert "rate-limited" in error_in(response)["message"]
    assert waited_seconds(response) < 1
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("odd", ["", "0x10", "-1", "soon", "1e9", "99999999999", "inf"])
def test_a_time_out_that_is_none_is_left_alone(client: Client, gemini: FakeGemini, pool: Pool, odd: str) -> None:
    pool("one")
    gemini.script(ONE, back_in(0.3))

    assert ask(client, headers={"x-server-timeout": odd}).status_code == 200


def test_the_time_out_of_the_client_bounds_the_fail_overs_too(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two")
    gemini.exhaust(ONE, TWO)
    gemini.first_byte_seconds = 0.6

    response = ask(client, headers={"x-server-timeout": "0.5"})

    assert response.status_code == 504
    assert gemini.secrets_seen == [ONE]


def test_with_a_wait_of_0_no_request_waits(client: Client, gemini: FakeGemini, pool: Pool, settings: Settings) -> None:
    settings.MAX_WAIT_SECONDS = 0
    pool("one")
    gemini.script(ONE, back_in(2))

    response = ask(client)

    assert response.status_code == 503
    assert response.headers["Retry-After"] in ("1", "2")
    assert waited_seconds(response) < 1
    assert len(gemini.seen) == 1


def test_no_more_wait_than_may(
    gemini: FakeGemini, pool: Pool, service: Ledger, ask_soon: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool("one")
    monkeypatch.setattr(service._writer, "most_waiting", 3)
    rest(service, seconds=15)

    asked = [ask_soon() for _ in range(8)]
    assert is_soon(lambda: sum(asking.done() for asking in asked) == 5, 10)
    ApiKey.objects.all().revive(timezone.now())
    responses = [asking.result() for asking in asked]

    assert Counter(response.status_code for response in responses) == {200: 3, 503: 5}
    assert all(waited_seconds(response) for response in responses if response.status_code == 200)
    assert all(5 < int(response.headers["Retry-After"]) <= 15 for response in responses if response.status_code == 503)


def test_who_waited_first_is_served_first(gemini: FakeGemini, pool: Pool, service: Ledger, ask_soon: Ask) -> None:
    pool("one")
    rest(service, seconds=15)
    asked = []
    for number in range(12):
        asked.append(ask_soon(body={"number": number}))
        assert is_soon(lambda: waiting_in(service) == len(asked))
    Quota.objects.filter(model_name=FLASH).set_limits(timezone.now(), requests_per_minute=7)

    ApiKey.objects.all().revive(timezone.now())
    served, others = [asking.result() for asking in asked[:7]], asked[7:]
    service.close()

    assert {response.status_code for response in served} == {200}
    assert {asking.result().status_code for asking in others} == {503}
    assert sorted(json.loads(seen.body)["number"] for seen in gemini.seen) == list(range(7))


def test_a_limited_model_does_not_delay_others(client: Client, gemini: FakeGemini, pool: Pool, service: Ledger) -> None:
    pool("one")
    rest(service, seconds=15)

    response = ask(client, PRO)

    assert response.status_code == 200
    assert response.headers["X-Waited-Seconds"] == "0.000"


def test_streams_wait_too(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, back_in(0.3))

    response = ask(client, STREAM)

    assert response.status_code == 200
    assert response.body.count(b"data: ") == 3


def test_requests_that_wait_when_the_service_stops_get_an_error(
    gemini: FakeGemini, pool: Pool, service: Ledger, ask_soon: Ask
) -> None:
    pool("one")
    rest(service, seconds=15)
    asking = [ask_soon() for _ in range(3)]
    assert is_soon(lambda: waiting_in(service) == 3)

    service.close()

    assert {asked.result().status_code for asked in asking} == {503}
    assert not gemini.seen


def test_a_burst_on_an_unknown_project_waits_once_its_limit_is_known(
    gemini: FakeGemini, pool: Pool, ask_soon: Ask
) -> None:
    pool("one")
    gemini.limit(per_minute=4)

    responses = [asked.result() for asked in [ask_soon(headers={"x-server-timeout": "5"}) for _ in range(16)]]

    assert Counter(response.status_code for response in responses) == {200: 4, 503: 12}
    assert sum(decision.is_accepted for decision in gemini.decisions) == 4
    assert len(gemini.decisions) <= 16  # nobody asked twice
    assert Quota.objects.get(model_name=FLASH).learned_requests_per_minute == 4


# An API that is overloaded


def test_an_overload_that_passes_is_waited_for_by_all(
    gemini: FakeGemini, pool: Pool, service: Ledger, ask_soon: Ask
) -> None:
    pool("one", "two", "three", "four", "five")
    gemini.overload(FLASH, 0.6)

    responses = [asked.result() for asked in [ask_soon() for _ in range(15)]]

    assert {response.status_code for response in responses} == {200}
    assert GeminiModel.objects.get().overloads == 0
    assert sum(not decision.is_accepted for decision in gemini.decisions) <= 30  # two waves, not three of each


def test_an_overloaded_model_holds_up_no_other(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.overload(FLASH, 30)
    ask(client, headers={"x-server-timeout": "0.2"})

    response = ask(client, PRO)

    assert response.status_code == 200
    assert response.headers["X-Waited-Seconds"] == "0.000"


# What a response says


@pytest.mark.parametrize("decent", ["mine", "0b8b1b7c-6d1c-4f0b-8f51-0f6f6cfb7f60", "a/b+c=d@e:1_2.3", "x" * 128])
def test_a_decent_id_of_the_client_is_kept_and_never_sent_on(
    client: Client, gemini: FakeGemini, pool: Pool, decent: str
) -> None:
    pool("one")

    response = ask(client, headers={"x-request-id": decent})

    assert response.headers["X-Request-Id"] == decent
    assert gemini.seen[0].header("x-request-id") is None


@pytest.mark.parametrize("junk", ["", "x" * 129, "two words", "a;b", "<script>", "ä", '"'])
def test_an_id_that_is_junk_is_replaced(client: Client, gemini: FakeGemini, pool: Pool, junk: str) -> None:
    pool("one")

    responses = [ask(client, headers={"x-request-id": junk}) for _ in range(2)]

    ids = [response.headers["X-Request-Id"] for response in responses]
    assert all(re.fullmatch("[0-9a-f]{16}", request_id) for request_id in ids)
    assert ids[0] != ids[1]
    assert gemini.seen[0].header("x-request-id") is None


def test_errors_have_a_request_id_too_and_it_is_in_the_log(
    client: Client, gemini: FakeGemini, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    pool("one")
    gemini.script(ONE, errors.leaked())

    no_key = ask(client, headers={"x-request-id": "first"})
    stranger = ask(Client(), headers={"x-request-id": "second"})

    assert (no_key.status_code, no_key.headers["X-Request-Id"]) == (503, "first")
    assert no_key.headers["X-Keys-Tried"] == "1"
    assert (stranger.status_code, stranger.headers["X-Request-Id"]) == (401, "second")
    assert stranger.headers["X-Keys-Tried"] == "0"
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith("first: ")]
    assert ONE not in caplog.text


def test_keys_are_named_only_where_a_setting_wants_it(
    client: Client, gemini: FakeGemini, pool: Pool, settings: Settings
) -> None:
    [key] = pool("one")

    silent = ask(client)
    settings.SHOW_KEY_NAMES = True
    telling = ask(client)
    stranger = ask(Client())

    assert "X-Key" not in silent.headers
    assert telling.headers["X-Key"] == f"key {key.pk} ...0one"
    assert "X-Key" not in stranger.headers


def test_ids_of_the_upstream_do_not_stand_in_the_place_of_ours(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, Reply(200, b"{}", {"X-Request-Id": "theirs", "X-Keys-Tried": "9"}))

    response = ask(client, GENERATE, headers={"x-request-id": "ours"})

    assert response.headers["X-Request-Id"] == "ours"
    assert response.headers["X-Keys-Tried"] == "1"
