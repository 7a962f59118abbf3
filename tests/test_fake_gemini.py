"""The fake upstream, on which other tests rely."""

import gzip
import http.client
import json
import socket
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
import requests
import time_machine

from tests import gemini_errors as errors
from tests.fake_gemini import ANSWER_TOKENS, PROMPT_TOKENS, THOUGHT_TOKENS, TOTAL_TOKENS, FakeGemini, Fault, Reply

FLASH = "/v1beta/models/gemini-2.5-flash"
CHAT = "/v1beta/openai/chat/completions"
NOON = datetime(2026, 11, 24, 20, tzinfo=UTC)  # Pacific


@pytest.fixture
def gemini() -> Iterator[FakeGemini]:
    with FakeGemini() as gemini:
        yield gemini


def ask(gemini: FakeGemini, path: str = f"{FLASH}:generateContent", **more: Any) -> requests.Response:
    usual: dict[str, Any] = {"headers": {"x-goog-api-key": "secret-one"}, "json": {}, "timeout": 5}
    return requests.post(gemini.url + path, **(usual | more))


def test_it_remembers_a_request_as_it_came(gemini: FakeGemini) -> None:
    headers = {"X-Goog-Api-Key": "secret-one", "Cookie": "a=b"}
    pieces = iter([b'{"a"', b":1}"])  # makes requests send it chunked

    answer = ask(gemini, f"/{FLASH}%3AcountTokens?a=%2F", headers=headers, json=None, data=pieces)

    assert answer.json() == {"totalTokens": 35}
    [seen] = gemini.seen
    assert (seen.method, seen.path, seen.body) == ("POST", f"/{FLASH}%3AcountTokens?a=%2F", b'{"a":1}')
    assert ("X-Goog-Api-Key", "secret-one") in seen.headers
    assert (seen.secret, seen.credentials) == ("secret-one", ["secret-one", "a=b"])
    assert not gemini.accepted


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"{FLASH}:generateContent", {}, 403),
        (f"{FLASH}:generateContent", {"Authorization": "Bearer secret-one"}, 401),
        (f"{FLASH}:generateContent?key=secret-one", {}, 200),
        (f"{FLASH}:generateContent?key=secret-one", {"x-goog-api-key": "secret-one"}, 400),
        (f"{FLASH}:generateContent", {"x-goog-api-key": "secret-two"}, 400),
        (CHAT, {"Authorization": "Bearer secret-one"}, 200),
        (CHAT, {"x-goog-api-key": "secret-one"}, 400),
        ("/v1/models/unknown-model:generateContent", {"x-goog-api-key": "secret-one"}, 404),
        ("/elsewhere", {"x-goog-api-key": "secret-one"}, 404),
    ],
)
def test_credentials_are_checked(gemini: FakeGemini, path: str, headers: dict[str, str], status: int) -> None:
    gemini.know("secret-one")

    answer = ask(gemini, path, headers=headers)

    assert answer.status_code == status
    assert isinstance(answer.json(), list) == (path == CHAT and status >= 400)


def test_quotas_belong_to_a_project_and_a_model(gemini: FakeGemini) -> None:
    for secret, project in [("secret-one", "p1"), ("secret-two", "p1"), ("secret-three", "p2")]:
        gemini.know(secret, project)
    gemini.limit(per_day=2)
    gemini.limit(project="p2", per_minute=1)
    secrets = ["secret-one", "secret-two", "secret-one", "secret-three", "secret-three"]

    answers = [ask(gemini, headers={"x-goog-api-key": secret}) for secret in secrets]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 429]
    assert "PerDay" in answers[2].text
    assert 58 <= int(answers[4].json()["error"]["details"][2]["retryDelay"].removesuffix("s")) <= 60
    assert gemini.accepted == {(secret, "gemini-2.5-flash"): 1 for secret in set(secrets)}


def refusal(answer: requests.Response) -> tuple[dict[str, str], str]:
    """Return the limits in a 429 by quota ID, and the delay in its message."""
    error = answer.json()["error"]
    values = {found["quotaId"]: found["quotaValue"] for found in error["details"][0]["violations"]}
    return values, error["message"].rpartition("Please retry in ")[2]


def test_a_minute_slides_and_what_was_refused_does_not_count(gemini: FakeGemini) -> None:
    gemini.limit(per_minute=2)
    statuses = []
    with time_machine.travel(NOON, tick=False) as clock:
        for seconds in (0, 10, 20, 29.75, 0.25, 0.25):
            clock.shift(seconds)
            statuses.append(ask(gemini).status_code)
        values, delay = refusal(ask(gemini))

    assert statuses == [200, 200, 429, 429, 200, 429]
    assert (values, delay) == ({errors.PER_MINUTE: "2"}, "9.75s.")


def test_tokens_per_minute_are_counted_from_the_body(gemini: FakeGemini) -> None:
    gemini.limit(tokens_per_minute=1_000)
    with time_machine.travel(NOON, tick=False) as clock:
        too_large = ask(gemini, json={"input_tokens": 5_000})
        clock.shift(60)
        fitting = [ask(gemini, json={"input_tokens": 600}), ask(gemini, json={"input_tokens": 365})]
        clock.shift(1)
        usual = ask(gemini)
        clock.shift(1)
        refused = [ask(gemini, json={"input_tokens": tokens}) for tokens in (1, 36, 601)]

    assert [answer.status_code for answer in [too_large, *fitting, usual, *refused]] == [200] * 4 + [429] * 3
    assert too_large.json()["usageMetadata"]["promptTokenCount"] == 5_000
    assert usual.json()["usageMetadata"]["promptTokenCount"] == PROMPT_TOKENS
    assert [refusal(answer) for answer in refused] == [({errors.TOKENS_PER_MINUTE: "1000"}, "58s.")] * 3


def test_a_429_names_all_that_was_violated_and_the_longest_delay(gemini: FakeGemini) -> None:
    gemini.know("secret-one", "p1")
    gemini.limit(per_minute=2, tokens_per_minute=100, per_day=2)
    with time_machine.travel(NOON, tick=False) as clock:
        ask(gemini, json={"input_tokens": 40})
        clock.shift(10)
        ask(gemini, json={"input_tokens": 50})
        clock.shift(10)
        refused = ask(gemini, json={"input_tokens": 80})
        clock.shift(timedelta(hours=12))
        next_day = ask(gemini)

    values = {errors.PER_MINUTE: "2", errors.TOKENS_PER_MINUTE: "100", errors.PER_DAY: "2"}
    assert refusal(refused) == (values, "11h59m40s.")
    details = refused.json()["error"]["details"]
    assert details[0]["violations"][1]["quotaDimensions"] == {"location": "global", "model": "gemini-2.5-flash"}
    assert details[2]["retryDelay"] == "43180s"
    assert next_day.status_code == 200
    noon, flash = NOON.timestamp(), "gemini-2.5-flash"
    assert gemini.decisions == [
        (noon, "p1", flash, True, (), 40),
        (noon + 10, "p1", flash, True, (), 50),
        (noon + 20, "p1", flash, False, tuple(values), 80),
        (noon + 20 + 12 * 3600, "p1", flash, True, (), PROMPT_TOKENS),
    ]


@pytest.mark.parametrize(
    ("path", "usage"),
    [
        (f"{FLASH}:generateContent", ("usageMetadata", "promptTokenCount", "totalTokenCount")),
        (CHAT, ("usage", "prompt_tokens", "total_tokens")),
    ],
)
def test_an_answer_reports_the_tokens_of_its_request(
    gemini: FakeGemini, path: str, usage: tuple[str, str, str]
) -> None:
    headers = {"Authorization": "Bearer secret-one"} if path == CHAT else {"x-goog-api-key": "secret-one"}

    numbers = ask(gemini, path, headers=headers, json={"model": "m", "input_tokens": 777}).json()[usage[0]]

    assert (numbers[usage[1]], numbers[usage[2]]) == (777, 777 + ANSWER_TOKENS + THOUGHT_TOKENS)


def test_an_overloaded_model_answers_503_for_so_long(gemini: FakeGemini) -> None:
    gemini.limit(per_minute=1)
    with time_machine.travel(NOON, tick=False) as clock:
        gemini.overload("gemini-2.5-flash", 30)
        answers = [ask(gemini), ask(gemini, f"{FLASH}:countTokens"), ask(gemini, FLASH + "-lite:generateContent")]
        clock.shift(30)
        answers.append(ask(gemini))

    assert [answer.status_code for answer in answers] == [503, 200, 200, 200]
    assert [(decision.is_accepted, decision.violated) for decision in gemini.decisions] == [
        (False, ()),
        (True, ()),
        (True, ()),
    ]


def test_the_first_byte_is_delayed_and_quotas_are_checked_before(gemini: FakeGemini) -> None:
    gemini.first_byte_seconds = 0.2
    began = time.time()

    ask(gemini)

    assert time.time() - began >= 0.2
    assert 0 <= gemini.decisions[0].moment - began < 0.2


def test_scripts_run_in_order_and_before_exhaustion(gemini: FakeGemini) -> None:
    gemini.exhaust("secret-one", model="gemini-2.5-flash")
    gemini.script("*", errors.overloaded(), Reply(302, b"", {"Location": "/x"}))

    answers = [ask(gemini, allow_redirects=False) for _ in range(3)]
    other = ask(gemini, "/v1/models/gemini-2.5-pro:generateContent")

    assert [answer.status_code for answer in [*answers, other]] == [503, 302, 429, 200]
    assert "Please retry in 19h34m29.838605682s." in answers[2].json()["error"]["message"]


def test_the_first_event_leaves_while_the_last_is_held(gemini: FakeGemini) -> None:
    gemini.hold = Event()
    connection = http.client.HTTPConnection("127.0.0.1", gemini.port, timeout=5)
    headers = {"x-goog-api-key": "secret-one", "Accept-Encoding": "gzip"}
    connection.request("POST", f"{FLASH}:streamGenerateContent?alt=sse", b"{}", headers)

    answer = connection.getresponse()
    first = answer.readline()
    gemini.hold.set()
    rest = answer.read()

    assert answer.getheader("Content-Type") == "text/event-stream"
    assert answer.getheader("Content-Encoding") is None
    events = [json.loads(event[6:]) for event in (first + rest).decode().split("\r\n\r\n")[:-1]]
    assert len(events) == 3
    assert events[-1]["candidates"][0]["finishReason"] == "STOP"
    assert events[-1]["usageMetadata"]["totalTokenCount"] == TOTAL_TOKENS
    connection.close()


def test_a_json_stream_is_flushed_piece_by_piece_through_gzip(gemini: FakeGemini) -> None:
    gemini.hold = Event()
    connection = http.client.HTTPConnection("127.0.0.1", gemini.port, timeout=5)
    headers = {"x-goog-api-key": "secret-one", "Accept-Encoding": "gzip"}
    connection.request("POST", f"{FLASH}:streamGenerateContent", b"{}", headers)

    answer = connection.getresponse()
    first = answer.read1()
    gemini.hold.set()
    content = first + answer.read()

    assert zlib.decompressobj(wbits=31).decompress(first).startswith(b'[{"candidates"')
    assert len(json.loads(gzip.decompress(content))) == 3
    connection.close()


@pytest.mark.parametrize("path", [f"{FLASH}:streamGenerateContent?alt=sse", f"{FLASH}:generateContent"])
def test_a_hung_or_held_answer_notices_at_once_that_its_client_left(gemini: FakeGemini, path: str) -> None:
    gemini.hold = Event()
    gemini.script("secret-one", *([] if "stream" in path else [Fault.HANG]))
    connection = http.client.HTTPConnection("127.0.0.1", gemini.port, timeout=5)
    connection.request("POST", path, b"{}", {"x-goog-api-key": "secret-one"})
    assert gemini.wait_for(lambda: gemini.seen)

    connection.close()

    assert gemini.wait_for(lambda: gemini.closed_early == 1, timeout_seconds=0.5)


@pytest.mark.parametrize("path", [f"{FLASH}:streamGenerateContent?alt=sse", f"{FLASH}:generateContent"])
def test_a_reset_comes_before_or_in_the_middle_of_an_answer(gemini: FakeGemini, path: str) -> None:
    gemini.script("secret-one", Fault.RESET_BEFORE, Fault.RESET_MIDDLE)

    with pytest.raises(requests.ConnectionError, match="reset"):
        ask(gemini, path)
    assert not gemini.accepted
    answer = ask(gemini, path, stream=True)
    with pytest.raises(requests.RequestException, match="reset"):
        answer.content  # noqa: B018  # reading is what fails

    assert gemini.accepted == {("secret-one", "gemini-2.5-flash"): 1}


def test_reset_ends_hanging_answers_and_stop_frees_the_port(gemini: FakeGemini) -> None:
    gemini.script("secret-one", Fault.HANG)
    connection = http.client.HTTPConnection("127.0.0.1", gemini.port, timeout=5)
    connection.request("POST", f"{FLASH}:generateContent", b"{}", {"x-goog-api-key": "secret-one"})
    assert gemini.wait_for(lambda: gemini.seen)

    gemini.reset()
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    gemini.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gemini.port), timeout=5)
    gemini.start()

    assert (ask(gemini).status_code, gemini.secrets_seen, gemini.closed_early) == (200, ["secret-one"], 0)


def test_an_answer_is_as_long_as_asked(gemini: FakeGemini) -> None:
    answer = ask(gemini, json={"contents": [{"parts": [{"text": "echo:1000003"}]}]})

    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.json()["candidates"][0]["content"]["parts"][0]["text"]) == 1_000_003
