"""Limits and waiting with gunicorn and gevent: two workers share what is left, and clients disconnect while waiting."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests import gemini_errors as errors
from tests.conftest import FLASH, fake_secret
from tests.fake_gemini import FakeGemini, Reply
from tests.service import SECRETS, Service, eventually, running

pytestmark = pytest.mark.process


@pytest.fixture
def own_service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(tmp_path, gemini, secrets=SECRETS[:1]) as service:
        yield service


def back_in(seconds: float) -> Reply:
    return errors.quota_exceeded(FLASH, errors.Violation(errors.PER_MINUTE, 100), delay_seconds=seconds)


def test_two_workers_learn_limits_from_a_burst_that_is_sent_at_once_and_never_pass_them_again(
    tmp_path: Path, gemini: FakeGemini
) -> None:
    gemini.limit(per_minute=6)

    def ask_at_once(service: Service, threads: ThreadPoolExecutor) -> Counter[int]:
        headers = {"x-goog-api-key": service.token, "x-server-timeout": "10"}
        asked = [threads.submit(service.ask, headers=headers) for _ in range(60)]
        return Counter(asking.result().status_code for asking in asked)

    with running(tmp_path, gemini) as service, ThreadPoolExecutor(60) as threads:
        assert ask_at_once(service, threads) == {200: 30, 503: 30}
        unknown = len(gemini.decisions)
        assert ask_at_once(service, threads) == {503: 60}

    assert len(gemini.decisions) == unknown


def test_an_unknown_limit_makes_no_request_wait(own_service: Service, gemini: FakeGemini) -> None:
    """Sixty requests at once with one key: all reach Google before the first is answered."""
    gemini.hold_heads = Event()
    with ThreadPoolExecutor(60) as threads:
        asked = [threads.submit(own_service.ask) for _ in range(60)]
        are_all_sent = gemini.wait_for(lambda: len(gemini.seen) == 60)
        gemini.hold_heads.set()
        answers = [asking.result() for asking in asked]

    assert are_all_sent
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["X-Waited-Seconds"] for answer in answers} == {"0.000"}


def test_a_request_waits_for_its_key(own_service: Service, gemini: FakeGemini) -> None:
    gemini.script("*", back_in(1.0))

    answer = own_service.ask()

    assert answer.status_code == 200
    assert answer.headers["X-Keys-Tried"] == "2"
    assert 0.8 < float(answer.headers["X-Waited-Seconds"]) < 10


def test_a_client_that_disconnects_while_waiting_sends_nothing_to_google(
    own_service: Service, gemini: FakeGemini
) -> None:
    gemini.script("*", back_in(2.0))
    with own_service.connect() as connection:
        connection.sendall(own_service.head("Content-Length: 2") + b"{}")
        assert gemini.wait_for(lambda: gemini.seen)

    assert not gemini.wait_for(lambda: len(gemini.seen) > 1, 3.0)
    assert own_service.ask().status_code == 200
    assert len(gemini.seen) == 2


def test_a_key_that_another_process_adds_serves_those_who_wait(own_service: Service, gemini: FakeGemini) -> None:
    gemini.script("*", back_in(18.0))
    more = own_service.folder / "more.txt"
    more.write_text(fake_secret("more"))

    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(own_service.ask)
        assert gemini.wait_for(lambda: gemini.seen)
        own_service.manage("importkeys", str(more))
        assert eventually(asking.done, 10)
        answer = asking.result()

    assert answer.status_code == 200
    assert gemini.secrets_seen == [SECRETS[0], fake_secret("more")]
    assert float(answer.headers["X-Waited-Seconds"]) < 15
