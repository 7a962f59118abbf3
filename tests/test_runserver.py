"""The plain way: migrate, importkeys, runserver. Threads instead of greenlets, one process, the same promises."""

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import requests

from tests.databases import ServiceDatabase
from tests.fake_gemini import ANSWER_TOKENS, FakeGemini
from tests.service import SECRETS, Service, eventually, read_event, text_in

pytestmark = pytest.mark.process

TOKEN = "a-token-for-runserver"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> ServiceDatabase:
    """A migrated database with the keys."""
    with Service(tmp_path_factory.mktemp("prepared"), "http://127.0.0.1:9", token=TOKEN) as service:
        service.manage("importkeys", str(service.folder / "key.txt"))
        return service.db


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini, prepared: ServiceDatabase) -> Iterator[Service]:
    with Service(tmp_path, gemini, token=TOKEN) as service:
        service.db.copy_from(prepared)
        yield service.start("runserver", f"127.0.0.1:{service.port}", "--noreload").wait_until_ready()


def output_tokens(service: Service) -> int:
    return sum(usage.output_tokens for usage in service.usage().values())


def test_runserver_hands_a_stream_on_as_it_is_made(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with service.stream() as response:
        early = [read_event(response), read_event(response)]
        assert gemini.is_holding
        gemini.hold.set()
        rest = response.read()

    assert text_in(b"".join(early) + rest) == gemini.text


def test_runserver_rotates_evenly_and_counts_exactly(service: Service, gemini: FakeGemini) -> None:
    assert service.ask().status_code == 200
    # Every project has proven that it accepts many requests. Until then, those that answer fastest get more.
    service.execute("UPDATE proxy_quota SET most_in_a_minute = 1000")
    gemini.exhaust(SECRETS[-1])
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: service.ask(f"number {number}"), range(79)))

    assert {answer.status_code for answer in answers} == {200}
    assert service.answers() == dict(gemini.accepted)
    accepted = Counter(gemini.accepted).values()
    assert len(accepted) == len(SECRETS) - 1
    assert max(accepted) - min(accepted) <= 2
    assert eventually(lambda: output_tokens(service) == 80 * ANSWER_TOKENS)


def test_a_client_that_leaves_runserver_ends_the_stream_upstream(service: Service, gemini: FakeGemini) -> None:
    gemini.chunks, gemini.pace = 1000, 0.02
    with service.stream() as response:
        read_event(response)

    assert gemini.wait_for(lambda: gemini.closed_early == 1, 3)
    assert service.ask().status_code == 200


def test_runserver_writes_no_token_and_no_key_into_its_access_lines(service: Service, gemini: FakeGemini) -> None:
    path = f"{service.url}/v1beta/models/gemini-2.5-flash:generateContent"
    statuses = [
        requests.post(path, params={"key": TOKEN}, json={}, timeout=30).status_code,
        requests.get(f"{service.url}/admin/", params={"key": TOKEN}, timeout=30).status_code,
        requests.get(f"{service.url}/v1/models", params={"key": SECRETS[0]}, timeout=30).status_code,
        requests.get(f"{service.url}/static/nothing", params={"key": TOKEN}, timeout=30).status_code,
    ]
    with service.connect() as connection:
        connection.sendall(f"GET /v1/models?key={TOKEN} HTTP/9.9\r\n\r\n".encode())
        connection.recv(65_536)
    with service.connect() as connection:
        connection.sendall(f"GET /v1/models?key={TOKEN} and more HTTP/1.1\r\n\r\n".encode())
        connection.recv(65_536)

    assert statuses == [200, 200, 401, 404]
    assert eventually(lambda: "generateContent?key=" in service.output)
    for secret in (TOKEN, *SECRETS):
        assert secret not in service.output + service.logs


def test_runserver_says_what_to_do_about_a_chunked_body(service: Service, gemini: FakeGemini) -> None:
    refused = service.ask(json=None, data=iter([b'{"a"', b": 1}"]))

    assert refused.status_code == 411
    assert "Content-Length" in refused.json()["error"]["message"]
    assert not gemini.seen
    assert service.ask().status_code == 200


def test_runserver_takes_a_large_body(service: Service, gemini: FakeGemini) -> None:
    body = b'{"text": "' + b"0123456789" * 1_000_000 + b'"}'
    assert service.ask(json=None, data=body).status_code == 200
    is_whole = gemini.seen[0].body == body  # on its own: pytest would explain a difference for minutes
    assert is_whole


def test_ctrl_c_ends_runserver_and_what_was_counted_stays(service: Service, gemini: FakeGemini) -> None:
    assert {service.ask().status_code for _ in range(5)} == {200}
    # The thread of a request books the tokens after the client has its answer.
    assert eventually(lambda: output_tokens(service) == 5 * ANSWER_TOKENS)
    service.press_ctrl_c()
    service.wait(10)

    assert not service.members
    assert "Traceback" not in service.output
    assert service.answers() == dict(gemini.accepted)
    assert output_tokens(service) == 5 * ANSWER_TOKENS


def test_ctrl_c_ends_runserver_with_a_stream_in_flight(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with service.stream() as response:
        read_event(response)
        service.press_ctrl_c()
        service.wait(10)

    assert not service.members
    assert service.answers() == dict(gemini.accepted)


def test_a_killed_runserver_has_counted_what_a_client_has_seen(service: Service, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with service.stream() as response:
        assert response.status == 200
        service.kill()

    assert service.answers() == dict(gemini.accepted)


def test_sigterm_ends_runserver_with_nothing_lost(service: Service, gemini: FakeGemini) -> None:
    assert {service.ask().status_code for _ in range(5)} == {200}
    assert eventually(lambda: output_tokens(service) == 5 * ANSWER_TOKENS)
    service.terminate()
    code = service.wait(10)

    assert code in (0, -signal.SIGTERM)
    assert service.answers() == dict(gemini.accepted)


def test_runserver_says_what_the_live_api_needs(service: Service) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "x-goog-api-key": TOKEN}
    path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    refused = requests.get(service.url + path, headers=headers, timeout=30)

    assert refused.status_code == 501
    assert "manage.py serve" in refused.json()["error"]["message"]
