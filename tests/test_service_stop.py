"""Stopping the service: streams may finish, no count is lost, and no process is left."""

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from tests.conftest import FLASH
from tests.fake_gemini import ANSWER_TOKENS, FakeGemini, Fault
from tests.service import Service, eventually, read_event, running, text_in

pytestmark = pytest.mark.process


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(tmp_path, gemini) as service:
        yield service


def output_tokens(service: Service) -> int:
    return sum(usage.output_tokens for usage in service.usage().values())


@pytest.mark.parametrize("end", [Service.terminate, Service.press_ctrl_c], ids=["SIGTERM", "Ctrl-C"])
def test_a_stream_in_flight_may_finish(service: Service, gemini: FakeGemini, end: Callable[[Service], None]) -> None:
    gemini.hold = Event()
    with service.stream() as response:
        early = read_event(response)
        end(service)
        assert eventually(lambda: not service.is_listening, 5)
        gemini.hold.set()
        rest = response.read()
    code = service.wait(10)

    assert text_in(early + rest) == gemini.text
    assert code == 0
    assert not service.members
    assert service.answers() == dict(gemini.accepted)
    assert output_tokens(service) == ANSWER_TOKENS
    assert "Traceback" not in service.output


def test_tokens_of_answers_just_given_are_booked_before_it_ends(service: Service, gemini: FakeGemini) -> None:
    assert {service.ask().status_code for _ in range(10)} == {200}
    code = service.stop()

    assert code == 0
    assert output_tokens(service) == 10 * ANSWER_TOKENS


def test_a_second_ctrl_c_ends_it_at_once(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with service.stream() as response:
        read_event(response)
        service.press_ctrl_c()
        assert eventually(lambda: not service.is_listening, 5)
        assert "Ctrl-C again" in service.output
        service.press_ctrl_c()
        pressed_at = time.monotonic()
        service.wait(10)
        took_seconds = time.monotonic() - pressed_at

    assert took_seconds < 4
    assert eventually(lambda: not service.members, 5)
    assert "Traceback" not in service.output
    assert service.answers() == dict(gemini.accepted)


def test_a_connection_kept_alive_in_silence_holds_nothing_up(service: Service) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        connection.request("POST", f"/v1/models/{FLASH}:generateContent", b"{}", {"x-goog-api-key": service.token})
        assert connection.getresponse().read()
        stopped_at = time.monotonic()
        service.terminate()
        code = service.wait(30)
        took_seconds = time.monotonic() - stopped_at

    assert code == 0
    assert took_seconds < 6


@pytest.mark.parametrize("is_hanging", [False, True], ids=["stream", "no answer yet"])
def test_a_limit_ends_what_lasts_too_long_and_its_count_stays(
    tmp_path: Path, gemini: FakeGemini, is_hanging: bool
) -> None:
    gemini.hold = Event()
    if is_hanging:
        gemini.script("*", Fault.HANG)
    with running(tmp_path, gemini, GRACEFUL_SECONDS="1") as service:
        with service.connect() as connection:
            connection.sendall(service.head("Content-Length: 2", action="streamGenerateContent?alt=sse") + b"{}")
            assert gemini.wait_for(lambda: gemini.seen)
            assert is_hanging or connection.recv(100)
            stopped_at = time.monotonic()
            service.terminate()
            code = service.wait(20)
            took_seconds = time.monotonic() - stopped_at

        assert code == 0
        assert took_seconds < 10
        assert eventually(lambda: not service.members, 5)
        if not is_hanging:
            assert service.answers() == dict(gemini.accepted)


def test_the_tokens_of_a_stream_cut_by_the_limit_are_booked(tmp_path: Path, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with running(tmp_path, gemini, GRACEFUL_SECONDS="1") as service, service.stream() as response:
        read_event(response)
        read_event(response)
        service.terminate()
        service.wait(20)

        assert output_tokens(service) == ANSWER_TOKENS * 2 // 3


def test_a_stream_that_ends_with_the_limit_near_loses_nothing(tmp_path: Path, gemini: FakeGemini) -> None:
    gemini.chunks, gemini.pace = 12, 0.15
    with running(tmp_path, gemini, GRACEFUL_SECONDS="3") as service:
        with service.stream() as response:
            early = read_event(response)
            service.terminate()
            rest = response.read()
        code = service.wait(20)

        assert text_in(early + rest) == gemini.text
        assert code == 0
        assert output_tokens(service) == ANSWER_TOKENS


@pytest.mark.parametrize("end", [Service.terminate, Service.press_ctrl_c], ids=["SIGTERM", "Ctrl-C"])
def test_it_can_be_stopped_while_it_starts(tmp_path: Path, gemini: FakeGemini, end: Callable[[Service], None]) -> None:
    with Service(tmp_path, gemini) as service:
        service.start()
        assert eventually(lambda: "listening on" in service.output)
        end(service)
        service.wait(20)

        assert eventually(lambda: not service.members, 5)


def test_it_starts_again_at_once_on_the_same_port(service: Service, gemini: FakeGemini) -> None:
    gemini.chunks, gemini.pace = 1000, 0.02
    with service.stream() as response:
        read_event(response)
        service.kill()
        service.start().wait_until_ready()

    assert service.ask().status_code == 200


def test_a_drain_serves_on_while_readiness_says_no(tmp_path: Path, gemini: FakeGemini) -> None:
    with running(tmp_path, gemini, DRAIN_SECONDS="30") as service:
        service.terminate()
        assert eventually(lambda: service.is_answering(status=503))
        assert service.ask().status_code == 200
        assert service.process is not None
        assert service.process.poll() is None

        service.terminate()  # a second time: the drain ends
        assert service.wait(10) == 0


def test_a_drain_ends_after_its_time(tmp_path: Path, gemini: FakeGemini) -> None:
    with running(tmp_path, gemini, DRAIN_SECONDS="0.3") as service:
        service.terminate()
        assert service.wait(10) == 0
