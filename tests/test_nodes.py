"""Several nodes on one PostgreSQL database, which goes away, hangs, or loses answers."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
import requests
import time_machine

from proxy.gemini.refusals import Refusal, Window
from proxy.ledger import Ledger
from proxy.ledger.claims import PoolExhausted
from proxy.ledger.clock import DatabaseClock
from tests.cable import Cable
from tests.conftest import Pool, claim_of
from tests.databases import ServiceDatabase
from tests.fake_gemini import FakeGemini
from tests.service import SECRETS, Service, connections_of, eventually, read_event, text_in

pytestmark = [pytest.mark.process, pytest.mark.postgres]

FOLLOW = DatabaseClock.follow  # other tests do without it
SECRET_KEY = "the same on all nodes, and long enough to be one"


def new_node(
    folder: Path,
    gemini: FakeGemini,
    database: ServiceDatabase | None = None,
    *,
    secret_key: str = SECRET_KEY,
    url: str = "",
) -> Service:
    """Return a node on `database`, or on a new one. url: another way to the database."""
    node = Service(folder, gemini, database=database, SECRET_KEY=secret_key, WEB_WORKERS="1")
    node.environment["DATABASE_URL"] = url or node.db.url
    return node


@pytest.fixture
def nodes(tmp_path: Path, gemini: FakeGemini) -> Iterator[list[Service]]:
    """Two nodes on one database."""
    with new_node(tmp_path / "a", gemini) as first:
        first.start().wait_until_ready()
        with new_node(tmp_path / "b", gemini, first.db) as second:
            yield [first, second.start().wait_until_ready()]


@pytest.fixture
def cable() -> Iterator[Cable]:
    database = ServiceDatabase(Path())
    database.create()
    with Cable(database) as cable:
        yield cable


@pytest.fixture
def node(tmp_path: Path, gemini: FakeGemini, cable: Cable) -> Iterator[Service]:
    """A node that reaches its database through a cable."""
    with new_node(tmp_path, gemini, cable.database, url=cable.url) as node:
        yield node.start().wait_until_ready()


def claims_made(node: Service) -> int:
    [[count]] = node.db.rows("SELECT COALESCE(SUM(day_requests), 0) FROM proxy_quota")
    return int(count)


def test_three_nodes_can_make_their_first_start_at_once(tmp_path: Path, gemini: FakeGemini) -> None:
    with ExitStack() as stack:
        database = ServiceDatabase(Path())
        database.create(is_migrated=False)
        starting = [
            stack.enter_context(new_node(tmp_path / name, gemini, database)).start() for name in ("a", "b", "c")
        ]
        for service in starting:
            service.wait_until_ready()

        assert {service.ask().status_code for service in starting} == {200}
        assert database.rows("SELECT COUNT(*) FROM auth_user") == [(1,)]
        assert database.rows("SELECT COUNT(*) FROM proxy_apikey") == [(len(SECRETS),)]
        assert sum("shown only once" in service.output for service in starting) == 1


def test_nodes_must_have_the_same_secret_key(tmp_path: Path, gemini: FakeGemini, nodes: list[Service]) -> None:
    with new_node(
        tmp_path / "c", gemini, nodes[0].db, secret_key="another one, which is just as long as that"
    ) as other:
        other.start()
        assert other.wait() == 1
        assert "Set it to the same value on all of them" in other.output
        assert "Traceback" not in other.output
        other.kill()

        other.start("serve", "--new-secret-key").wait_until_ready()


def test_a_node_without_migrations_says_so(tmp_path: Path, gemini: FakeGemini) -> None:
    with new_node(tmp_path, gemini) as node:
        node.start("serve", "--no-migrate").wait_until_ready()
        node.stop()
        newest = "SELECT MAX(name) FROM django_migrations WHERE app = 'proxy'"
        node.execute(f"DELETE FROM django_migrations WHERE app = 'proxy' AND name = ({newest})")

        assert "Run `python manage.py migrate`" in node.mistake("serve", "--no-migrate")


@pytest.mark.parametrize("state", ["idle in transaction", "active"], ids=["between statements", "in a pipeline"])
def test_a_silent_node_does_not_stop_the_others(nodes: list[Service], state: str) -> None:
    silent, other = nodes
    stop = Event()

    def keep_asking() -> None:
        while not stop.is_set():
            with suppress(requests.RequestException):
                silent.ask()

    def falls_silent_with_the_lock() -> bool:
        """Stop all processes of the node, and tell whether the server waits for it while it holds the lock."""
        os.killpg(silent.pid, signal.SIGSTOP)
        held = "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted"
        if silent.db.rows(f"{held} AND state = '{state}' AND wait_event = 'ClientRead'"):
            return True
        os.killpg(silent.pid, signal.SIGCONT)
        time.sleep(0.01)
        return False

    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(keep_asking) for _ in range(4)]
        assert eventually(falls_silent_with_the_lock)
        began = time.monotonic()
        status = other.ask().status_code
        seconds = time.monotonic() - began
        stop.set()
        os.killpg(silent.pid, signal.SIGCONT)
        assert all(future.exception() is None for future in asking)

    assert status == 200
    assert seconds < 3
    assert silent.ask().status_code == 200


def test_a_commit_without_an_answer_is_counted_once(node: Service, cable: Cable, gemini: FakeGemini) -> None:
    for number in range(30):
        if number % 3:
            cable.answers_to_lose = 1
        else:
            cable.commits_to_lose = 1
        assert node.ask().status_code == 200
        assert eventually(lambda: not cable.answers_to_lose + cable.commits_to_lose)
    assert node.stop() == 0

    assert node.answers() == dict(gemini.accepted)
    assert sum(gemini.accepted.values()) == claims_made(node) == 30


def test_requests_wait_for_a_database_that_comes_back(node: Service, cable: Cable, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    with node.stream() as response, ThreadPoolExecutor() as threads:
        early = read_event(response)
        cable.cut()
        assert eventually(lambda: node.is_answering(status=503))
        asking = [threads.submit(node.ask) for _ in range(5)]
        gemini.hold.set()
        rest = response.read()
        # They have arrived while the database is away.
        assert eventually(lambda: sum(connections_of(pid, node.port) for pid in node.workers) >= len(asking))
        cable.mend()
        assert [future.result().status_code for future in asking] == [200] * 5
    assert node.ask().status_code == 200
    assert node.stop() == 0

    assert text_in(early + rest) == gemini.text
    assert node.answers() == dict(gemini.accepted)
    assert sum(gemini.accepted.values()) == claims_made(node) == 7


def test_requests_end_when_the_database_stays_away(node: Service, cable: Cable) -> None:
    cable.cut()
    response = node.ask()
    cable.mend()

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert eventually(lambda: node.ask().status_code == 200)


def test_a_lock_that_is_never_released_is_reported(node: Service) -> None:
    with node.db.locked():
        assert eventually(lambda: node.is_answering(status=503))
        response = node.ask()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert eventually(node.is_answering)


def test_the_clock_of_a_node_may_be_wrong(service: Ledger, pool: Pool) -> None:
    pool("one")
    service.book_refusal(claim_of(service), Refusal(Window.DAY))
    service.close()
    moment = datetime.now(UTC)
    for error in (timedelta(days=2), timedelta(days=-2)):
        with time_machine.travel(moment + error), pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(DatabaseClock, "follow", FOLLOW)
            monkeypatch.setattr(service._transaction, "clock", DatabaseClock())  # that of a process that just started
            with pytest.raises(PoolExhausted) as exhausted:
                claim_of(service)
            assert abs(service.moment() - moment) < timedelta(minutes=1)
            assert exhausted.value.opens_at is not None
            assert exhausted.value.opens_at > moment
            service.close()
