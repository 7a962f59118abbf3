"""Streams with gunicorn and gevent: they arrive without delay, and end when either side ends them."""

import http.client
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Event

import pytest

from tests.conftest import FLASH
from tests.databases import SERVER
from tests.fake_gemini import ANSWER_TOKENS, FakeGemini, Fault
from tests.service import Service, eventually, read_event, running, text_in

pytestmark = pytest.mark.process

# How long the connection to Google may outlive the client; on a busy machine, and far below any time-out.
SOON_SECONDS = 3.0


@pytest.fixture
def own_service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(tmp_path, gemini) as service:
        yield service


def test_a_stream_arrives_as_it_is_made(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with service.stream() as response:
        early = [read_event(response), read_event(response)]
        assert gemini.is_holding
        gemini.hold.set()
        rest = response.read()

    assert text_in(b"".join(early) + rest) == gemini.text
    assert response.getheader("X-Accel-Buffering") == "no"


def test_a_json_array_arrives_as_it_is_made(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        path = f"/v1beta/models/{FLASH}:streamGenerateContent"
        connection.request("POST", path, b"{}", {"x-goog-api-key": service.token, "Accept-Encoding": "gzip"})
        response = connection.getresponse()
        early = response.read1()
        assert gemini.is_holding
        gemini.hold.set()
        rest = response.read()

    assert early.startswith(b"\x1f\x8b")
    assert rest


def test_a_client_that_leaves_a_flowing_stream_ends_it_upstream(service: Service, gemini: FakeGemini) -> None:
    gemini.chunks, gemini.pace = 1000, 0.02
    with service.stream() as response:
        read_event(response)

    assert gemini.wait_for(lambda: gemini.closed_early == 1, SOON_SECONDS)


def test_a_client_that_leaves_a_silent_stream_ends_it_upstream(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with service.stream(model="left-in-silence") as response:
        read_event(response)
        read_event(response)

    assert gemini.wait_for(lambda: gemini.closed_early == 1, SOON_SECONDS)
    assert service.answers("left-in-silence") == dict(gemini.accepted)


@pytest.mark.parametrize("is_streaming", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_before_any_answer_ends_the_request_upstream(
    service: Service, gemini: FakeGemini, is_streaming: bool
) -> None:
    gemini.script("*", Fault.HANG)
    action = "streamGenerateContent" if is_streaming else "generateContent"
    with service.connect() as connection:
        connection.sendall(service.head("Content-Length: 2", action=action) + b"{}")
        assert gemini.wait_for(lambda: gemini.seen)

    assert gemini.wait_for(lambda: gemini.closed_early == 1, SOON_SECONDS)
    assert len(gemini.seen) == 1
    assert service.ask().status_code == 200


def test_fifty_clients_that_leave_at_once_leave_nothing_behind(own_service: Service, gemini: FakeGemini) -> None:
    descriptors_before = {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in own_service.workers}
    gemini.hold = Event()
    with ExitStack() as streams:
        for _ in range(50):
            read_event(streams.enter_context(own_service.stream()))

    assert gemini.wait_for(lambda: gemini.closed_early == 50, SOON_SECONDS)
    for pid, before in descriptors_before.items():
        # A database connection, its lock and its temporary files may have been opened since.
        assert eventually(lambda pid=pid, before=before: len(list(Path(f"/proc/{pid}/fd").iterdir())) < before + 8, 5)  # type: ignore[misc]


def test_a_connection_serves_on_after_a_stream_and_after_a_long_answer(service: Service, gemini: FakeGemini) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        texts, own_ports = [], set()
        for number in range(20):
            action = ("streamGenerateContent?alt=sse", "generateContent")[number % 2]
            connection.request("POST", f"/v1beta/models/kept-alive:{action}", b"{}", {"x-goog-api-key": service.token})
            own_ports.add(connection.sock.getsockname())  # http.client would open another connection silently
            texts.append(connection.getresponse().read())

    assert len(own_ports) == 1
    assert all(b"STOP" in text for text in texts)
    assert service.answers("kept-alive") == dict(gemini.accepted)


def test_a_question_sent_while_a_stream_is_silent_waits_for_its_end(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    question = service.head("Content-Length: 2", action="streamGenerateContent?alt=sse") + b"{}"
    with service.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(question)
        assert b"200" in answers.readline()
        connection.sendall(question)  # while the first stream is held
        busy_before = service.cpu_seconds()
        assert not gemini.wait_for(lambda: gemini.closed_early or len(gemini.seen) > 1, 1.5)
        busy_seconds = service.cpu_seconds() - busy_before
        gemini.hold.set()
        assert gemini.wait_for(lambda: len(gemini.seen) == 2)
        both = b""
        while both.count(b"\r\n0\r\n\r\n") < 2:
            piece = connection.recv(65_536) if not answers.peek() else answers.read1()
            assert piece
            both += piece

    assert both.count(b"STOP") == 2
    assert busy_seconds < 0.5


def test_a_stream_that_breaks_upstream_breaks_here_too(service: Service, gemini: FakeGemini) -> None:
    gemini.script("*", Fault.RESET_MIDDLE)
    with service.stream(model="broken-off") as response:
        assert read_event(response)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()

    assert service.answers("broken-off") == dict(gemini.accepted)
    assert service.ask().status_code == 200


def test_clients_that_leave_at_any_moment_mix_nothing_up(own_service: Service, gemini: FakeGemini) -> None:
    gemini.pace = 0.002
    chance = Random()

    def ask(number: int) -> bool:
        """Request an answer of a certain size. Tell whether it was correct, or was abandoned on purpose."""
        action = ("generateContent", "streamGenerateContent?alt=sse")[number % 2]
        body = b'{"contents": [{"parts": [{"text": "echo:%d"}]}]}' % (5000 + number)
        request = own_service.head(f"Content-Length: {len(body)}", "Connection: close", action=action) + body
        with own_service.connect() as connection:
            connection.sendall(request[: chance.randrange(len(request))] if number % 7 == 0 else request)
            if number % 3 == 0 or number % 7 == 0:
                connection.settimeout(chance.random() / 50)
                with suppress(TimeoutError):
                    connection.recv(100)
                return True
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        size = sum(len(text) for text in re.findall(rb'"text": "(\d+)"', answer))
        return answer.startswith(b"HTTP/1.1 200") and size == 5000 + number

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(400)))

    assert all(answers), [number for number, is_right in enumerate(answers) if not is_right]
    # Of a request that was cut off on its way nobody can tell whether Google took it: it counts.
    accepted = gemini.accepted.items()
    assert eventually(lambda: all(own_service.answers().get(row, 0) >= number for row, number in accepted), 10)
    left = sum(number % 3 == 0 or number % 7 == 0 for number in range(400))
    assert sum(own_service.answers().values()) <= gemini.accepted.total() + left
    assert {own_service.ask().status_code for _ in range(10)} == {200}


def test_an_upstream_that_was_restarted_is_found_again(own_service: Service, gemini: FakeGemini) -> None:
    def ask_many() -> set[int]:
        with ThreadPoolExecutor(8) as threads:
            return set(threads.map(lambda _: own_service.ask().status_code, range(24)))

    before = ask_many()
    gemini.stop()
    gemini.start()

    assert before == {200}
    assert ask_many() == {200}
    assert own_service.answers() == dict(gemini.accepted)


def test_two_hundred_streams_at_once_arrive_whole(own_service: Service, gemini: FakeGemini) -> None:
    gemini.chunks, gemini.hold = 20, Event()

    def read(number: int) -> str:
        with own_service.stream(f"stream {number}") as response:
            return text_in(response.read())

    with ThreadPoolExecutor(200) as threads:
        streams = [threads.submit(read, number) for number in range(200)]
        assert gemini.wait_for(lambda: len(gemini.seen) == 200, 20)
        gemini.hold.set()
        texts = {stream.result(timeout=30) for stream in streams}

    assert texts == {gemini.text}
    assert own_service.answers() == dict(gemini.accepted)
    assert sum(usage.answers for usage in own_service.usage().values()) == 200
    assert eventually(lambda: sum(usage.output_tokens for usage in own_service.usage().values()) == 200 * ANSWER_TOKENS)


def test_a_locked_database_stalls_no_running_stream(own_service: Service, gemini: FakeGemini) -> None:
    gemini.chunks, gemini.pace = 90, 0.05
    started, arrivals = Event(), [[time.monotonic()] for _ in range(6)]

    def read(moments: list[float]) -> None:
        with own_service.stream("echo:900") as response:
            while read_event(response):
                moments.append(time.monotonic())
                if all(len(seen) > 2 for seen in arrivals):
                    started.set()

    with ThreadPoolExecutor(8) as threads:
        streams = [threads.submit(read, moments) for moments in arrivals]
        assert started.wait(20)
        with own_service.db.locked():
            locked_at = time.monotonic()
            newcomers = [threads.submit(own_service.ask, "a newcomer") for _ in range(2)]
            assert eventually(lambda: time.monotonic() > locked_at + 3)
            is_ready = own_service.is_answering("/readyz")
            # On PostgreSQL, a turn may be at hand, and an answer is counted without the lock.
            assert SERVER or not any(newcomer.done() for newcomer in newcomers)
        unlocked_at = time.monotonic()
        answers = [newcomer.result(timeout=20) for newcomer in newcomers]
        waited_seconds = time.monotonic() - unlocked_at
        for stream in streams:
            stream.result(timeout=20)

    gaps = [after - before for moments in arrivals for before, after in pairwise(moments[2:])]
    assert max(gaps) < 0.8, max(gaps)
    assert not is_ready  # it has waited for three seconds
    assert {answer.status_code for answer in answers} == {200}
    assert waited_seconds < 5
    assert own_service.answers() == dict(gemini.accepted)


def test_streams_end_while_the_database_is_locked_and_their_tokens_follow(
    own_service: Service, gemini: FakeGemini
) -> None:
    gemini.hold = Event()
    with ExitStack() as streams:
        responses = [streams.enter_context(own_service.stream()) for _ in range(4)]
        for response in responses:
            read_event(response)
        with own_service.db.locked():
            released_at = time.monotonic()
            gemini.hold.set()
            rests = [response.read() for response in responses]
            ended_after = time.monotonic() - released_at

    assert all(b"STOP" in rest for rest in rests)
    assert ended_after < 2
    assert eventually(lambda: sum(usage.output_tokens for usage in own_service.usage().values()) == 4 * ANSWER_TOKENS)
