"""`manage.py serve` as real processes: its output, an even rotation, and exact counts whatever happens to it."""

import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPException
from itertools import count
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Event

import pytest
import requests

from tests.conftest import FLASH, TOKEN
from tests.databases import SERVER
from tests.fake_gemini import ANSWER_TOKENS, PROMPT_TOKENS, THOUGHT_TOKENS, FakeGemini
from tests.service import SECRETS, Service, connections_of, eventually, free_port, read_event, running

pytestmark = pytest.mark.process


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(tmp_path, gemini) as service:
        yield service


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        return True
    return False


def test_it_says_where_it_is_and_how_it_is_used(service: Service) -> None:
    said = service.output

    assert f"listening on 127.0.0.1:{service.port}" in said
    assert "5 usable" in said
    assert f"base URL {service.url}, API key {TOKEN}" in said
    assert f"base URL {service.url}/v1," in said
    assert f"{service.url}/dashboard/" in said
    assert f"{service.url}/admin/" in said
    assert "Traceback" not in said
    assert all(secret not in said for secret in SECRETS)


def test_the_password_of_the_admin_is_shown_once_and_opens_the_dashboard(service: Service) -> None:
    [password] = re.findall(r"name admin, password (\S+)", service.output)

    with requests.Session() as browser:
        login = f"{service.url}/admin/login/?next=/dashboard/"
        form = {"username": "admin", "password": password, "next": "/dashboard/"}
        form["csrfmiddlewaretoken"] = re.findall(r'csrfmiddlewaretoken" value="(\w+)"', browser.get(login).text)[0]
        page = browser.post(login, form, headers={"Referer": login})
    service.kill()
    service.start().wait_until_ready()

    assert page.url == f"{service.url}/dashboard/"
    assert page.status_code == 200
    assert "password" not in service.output
    assert "0 added, 5 known" in service.output
    assert service.ask().status_code == 200


def test_it_warns_of_the_well_known_token_and_only_of_that(tmp_path: Path, gemini: FakeGemini) -> None:
    own_token = "a-token-of-our-own"
    with running(tmp_path / "default", gemini) as service:
        said_with_default = service.output
    with running(tmp_path / "own", gemini, token=own_token, LOG_DIR="") as service:
        said_with_own = service.output
        assert not list(service.folder.rglob("*.log"))

    assert "Warning: the token is the public default" in said_with_default
    assert "Warning" not in said_with_own
    assert own_token not in said_with_own


def test_it_starts_with_the_complete_keys_and_reports_the_others(tmp_path: Path, gemini: FakeGemini) -> None:
    with Service(tmp_path, gemini, secrets=[SECRETS[0], "AIzaTooShort", f"Anna: {SECRETS[1]}"]) as service:
        (tmp_path / "key.txt").chmod(0o644)
        service.start().wait_until_ready()
        answer = service.ask()
        output = service.output

    assert answer.status_code == 200
    assert "key.txt: 2 added, 0 known, 1 malformed (line 2)." in output
    assert "Incomplete keys were skipped (line 2). All other keys were imported." in output
    assert f"run `chmod 600 {tmp_path}/key.txt`" in output
    assert not [secret for secret in (*SECRETS, "TooShort") if secret in output]


def test_it_starts_without_keys_and_says_what_to_do(tmp_path: Path, gemini: FakeGemini) -> None:
    with Service(tmp_path, gemini, secrets=()) as service:
        service.start().wait_until_ready("/healthz")
        answer = service.ask()
        is_ready = service.is_answering("/readyz")

        assert "No keys yet" in service.output
        assert "key.txt" in service.output
    assert not is_ready
    assert answer.status_code == 503
    assert "Add keys" in answer.json()["error"]["message"]


def test_a_port_in_use_is_reported_in_one_sentence(tmp_path: Path, gemini: FakeGemini) -> None:
    with Service(tmp_path, gemini) as service, socket.socket() as other:
        other.bind(("127.0.0.1", service.port))
        other.listen()
        service.start()
        try:
            code = service.wait(15)
        except TimeoutExpired:
            pytest.fail(f"It goes on:\n{service.output}")

        about_the_port = [line for line in service.output.splitlines() if "use" in line and str(service.port) in line]
        assert code == 1
        assert "Traceback" not in service.output
        assert len(about_the_port) == 1, service.output
        assert "listening on" not in service.output
        assert not service.members


def test_it_listens_at_several_addresses(tmp_path: Path, gemini: FakeGemini) -> None:
    others = [f"127.0.0.1:{free_port()}", *([f"[::1]:{free_port()}"] if has_ipv6() else [])]
    with Service(tmp_path, gemini) as service:
        service.environment["BIND"] = ", ".join([f"127.0.0.1:{service.port}", *others])
        service.start().wait_until_ready()

        assert {requests.get(f"http://{address}/readyz", timeout=5).status_code for address in others} == {200}
        assert f"base URL {service.url}," in service.output


def test_it_answers_many_readiness_checks_at_once(service: Service) -> None:
    # Nobody else has the database open: each of these opens and closes it, which SQLite does under a lock of its own.
    with ThreadPoolExecutor(6) as threads:
        answers = Counter(answer.text for answer in threads.map(requests.get, [f"{service.url}/readyz"] * 300))

    assert answers == {'{"status": "ready"}': 300}


def test_rotation_is_even_and_the_counts_exact_over_two_workers(service: Service, gemini: FakeGemini) -> None:
    for _ in SECRETS:
        service.ask()
    service.execute("UPDATE proxy_quota SET most_in_a_minute = 1000")  # all have the same proven room
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: service.ask(f"number {n}"), range(198)))

    assert {answer.status_code for answer in answers} == {200}
    assert service.answers() == dict(gemini.accepted)
    counts = Counter(gemini.secrets_seen).values()
    assert sum(counts) == 203
    assert max(counts) - min(counts) <= 4  # some turns that a worker had leased were given back
    assert len(service.workers) == 2


def test_failing_over_under_load_counts_every_answer_and_every_refusal(service: Service, gemini: FakeGemini) -> None:
    gemini.exhaust(SECRETS[0], SECRETS[1])
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: service.ask(f"number {n}"), range(150)))

    assert {answer.status_code for answer in answers} == {200}
    assert service.answers() == dict(gemini.accepted)
    # Bookings of refusals are not waited for.
    refused = Counter(gemini.secrets_seen) - Counter(
        {secret: number for (secret, _), number in gemini.accepted.items()}
    )
    assert eventually(
        lambda: {secret: usage.refusals for (secret, _), usage in service.usage().items() if usage.refusals} == refused
    )
    assert set(refused) == {SECRETS[0], SECRETS[1]}
    assert max(refused.values()) <= 16


def test_the_tokens_of_parallel_streams_are_all_booked(service: Service, gemini: FakeGemini) -> None:
    def read(number: int) -> bytes:
        with service.stream(f"number {number}") as response:
            return response.read()

    with ThreadPoolExecutor(8) as threads:
        streams = list(threads.map(read, range(40)))

    def tokens() -> tuple[int, int, int]:
        usages = service.usage().values()
        return (
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.output_tokens for usage in usages),
            sum(usage.thinking_tokens for usage in usages),
        )

    assert all(streams)
    assert eventually(lambda: tokens() == (40 * PROMPT_TOKENS, 40 * ANSWER_TOKENS, 40 * THOUGHT_TOKENS)), tokens()


def test_requests_are_spread_over_both_workers(service: Service, gemini: FakeGemini) -> None:
    def have_all_accepted() -> bool:
        opened.enter_context(service.connect())
        return all(connections_of(pid, service.port) for pid in service.workers)

    with ExitStack() as opened:  # one worker may have started later than the other
        assert eventually(have_all_accepted)
    assert eventually(lambda: not any(connections_of(pid, service.port) for pid in service.workers))
    gemini.hold = Event()

    def read(number: int) -> bytes:
        with service.stream(f"number {number}") as response:
            return response.read()

    with ThreadPoolExecutor(64) as threads:
        streams = [threads.submit(read, number) for number in range(64)]
        assert gemini.wait_for(lambda: len(gemini.seen) == 64, 20)
        shares = [connections_of(pid, service.port) for pid in service.workers]
        gemini.hold.set()
        assert all(stream.result(timeout=20) for stream in streams)

    assert sum(shares) == 64
    assert min(shares) >= 2, shares


def test_a_worker_that_dies_is_replaced_and_its_clients_see_a_broken_stream(
    service: Service, gemini: FakeGemini
) -> None:
    first, second = service.workers
    gemini.hold = Event()
    with service.stream() as response:
        read_event(response)
        struck = first if connections_of(first, service.port) else second
        service.kill_one(struck)
        with pytest.raises((HTTPException, OSError)):
            response.read()
    gemini.hold = None

    assert eventually(lambda: len(service.workers) == 2 and struck not in service.workers)
    assert {service.ask().status_code for _ in range(10)} == {200}
    assert service.answers() == dict(gemini.accepted)


@pytest.mark.parametrize("is_slow", [False, True], ids=["at full speed", "with streams under way"])
def test_what_a_client_has_seen_is_counted_whatever_is_killed(
    tmp_path: Path, gemini: FakeGemini, is_slow: bool
) -> None:
    gemini.chunks, gemini.pace = (5, 0.02) if is_slow else (1, 0.0)
    numbers = count(1)
    seen: set[str] = set()

    def ask_until_it_breaks(service: Service) -> None:
        try:
            while True:
                model = f"{FLASH}-{next(numbers)}"  # so that each request has a row of its own
                with service.stream(model=model) as response:
                    assert response.status == 200
                    seen.add(model)
                    response.read()
        except (OSError, HTTPException):
            return

    with Service(tmp_path, gemini) as service:
        for goal in (60, 120):
            service.start().wait_until_ready()
            with ThreadPoolExecutor(12) as threads:
                clients = [threads.submit(ask_until_it_breaks, service) for _ in range(12)]
                is_reached = eventually(lambda goal=goal: len(seen) >= goal)  # type: ignore[misc]  # B023's remedy
                service.kill()
                for client in clients:
                    client.result(timeout=20)
            assert is_reached

            counted = service.answers()
            assert seen <= {model for _, model in counted}
            assert all(answers <= gemini.accepted[row] for row, answers in counted.items())
        service.start().wait_until_ready()
        assert service.ask().status_code == 200
        if not SERVER:
            assert service.db.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.sqlite
@pytest.mark.parametrize("is_new_worker", [False, True], ids=["seen by a running worker", "seen by a new worker"])
def test_a_database_that_is_deleted_is_noticed(
    tmp_path: Path, gemini: FakeGemini, service: Service, *, is_new_worker: bool
) -> None:
    for _ in range(4):
        assert service.ask().status_code == 200
    away = tmp_path / "away"
    away.mkdir()
    for part in service.database.parent.glob("keymanager.sqlite3*"):
        part.rename(away / part.name)
    if is_new_worker:
        before = service.workers
        for worker in before:
            service.kill_one(worker)
        assert eventually(lambda: len(set(service.workers) - set(before)) == 2)

    assert eventually(lambda: service.is_answering(status=503))
    response = service.ask()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert f"{service.database} was deleted or replaced." in service.logs
    assert "Traceback" not in service.logs
    assert not service.database.exists()

    for part in away.iterdir():
        part.rename(service.database.parent / part.name)
    assert eventually(service.is_answering)
    assert service.ask().status_code == 200
    assert service.stop() == 0
    assert service.answers() == dict(gemini.accepted)
