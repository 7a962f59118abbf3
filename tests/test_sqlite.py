"""Our use of SQLite: waiting for the lock outside SQLite, one write lock per transaction, the newer library."""

import importlib.util
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from threading import Barrier, Event, Thread, Timer

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models import F
from django.utils import timezone

from keymanager import settings
from proxy.ledger import Ledger
from proxy.models import ApiKey, Quota
from proxy.pool.adding import add_keys
from proxy.sqlite.base import Database
from tests.conftest import Pool, claim_of, fake_secret, locked_database, other_connection

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]

ONE = fake_secret("one")


def pragma(name: str) -> object:
    with connection.cursor() as cursor:
        return cursor.execute(f"PRAGMA {name}").fetchone()[0]


def rename(name: str, *, is_atomic: bool = False) -> None:
    with transaction.atomic() if is_atomic else nullcontext():
        ApiKey.objects.update(name=name)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new connections of this thread wait 0.2 s for a lock."""
    connection.close()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.2)


@pytest.fixture
def key() -> ApiKey:
    add_keys([ONE], timezone.now())
    return ApiKey.objects.get()


def test_the_library_is_a_safe_one_where_its_wheel_exists() -> None:
    if importlib.util.find_spec("pysqlite3") is None:
        pytest.skip("There is no wheel of pysqlite3 for this platform.")

    assert Database.sqlite_version_info >= (3, 51, 3)
    assert Database.__name__.startswith("pysqlite3")


def test_the_journal_is_a_write_ahead_log_and_sqlite_itself_never_waits() -> None:
    connection.close()

    assert pragma("journal_mode") == "wal"
    assert pragma("busy_timeout") == 0
    assert pragma("foreign_keys") == 1


def test_a_commit_is_on_disk_when_it_returns() -> None:
    text = Path(settings.__file__).read_text(encoding="utf-8")  # the tests' own database has other settings

    assert "PRAGMA synchronous=FULL" in text


def test_a_transaction_takes_the_write_lock_when_it_begins(key: ApiKey) -> None:
    with closing(other_connection()) as other:
        other.execute("PRAGMA busy_timeout=0")
        with transaction.atomic(), pytest.raises(Database.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

        other.execute("BEGIN IMMEDIATE")
        other.rollback()


@pytest.mark.parametrize("is_atomic", [True, False], ids=["transaction", "single statement"])
def test_a_writer_waits_for_its_turn(key: ApiKey, is_atomic: bool) -> None:
    with locked_database() as let_go:
        Timer(0.3, let_go).start()
        began = time.monotonic()

        rename("mine", is_atomic=is_atomic)

        assert time.monotonic() - began >= 0.25
    assert ApiKey.objects.get().name == "mine"


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("is_atomic", [True, False], ids=["transaction", "single statement"])
def test_a_writer_gives_up_after_its_time(key: ApiKey, is_atomic: bool) -> None:
    with locked_database():
        began = time.monotonic()

        with pytest.raises(OperationalError, match="locked"):
            rename("mine", is_atomic=is_atomic)

        assert 0.2 <= time.monotonic() - began < 5
    rename("later")
    assert ApiKey.objects.get().name == "later"


def test_readers_do_not_wait_for_a_writer(key: ApiKey) -> None:
    with locked_database("EXCLUSIVE"):
        assert ApiKey.objects.count() == 1


def test_a_new_connection_waits_for_its_turn_too(key: ApiKey) -> None:
    """As after a crash, while another process recovers the WAL, or while the last process closes it."""
    connection.close()
    other = other_connection()
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("UPDATE proxy_apikey SET name = 'theirs'")
    timer = Timer(0.3, other.close)
    timer.start()

    try:
        name = ApiKey.objects.get().name
    finally:
        timer.join()

    assert name == "theirs"


def test_others_go_on_while_one_waits(key: ApiKey) -> None:
    """The wait is a sleep in Python, so that with gevent, every other greenlet can run."""
    is_waiting, done, sleeps = Event(), Event(), []
    sleep = time.sleep

    def watch(seconds: float) -> None:
        sleeps.append(threading.current_thread().name)
        is_waiting.set()
        sleep(seconds)

    def write() -> None:
        rename("mine")
        connections.close_all()
        done.set()

    with locked_database() as let_go, pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy.sqlite.base.time.sleep", watch)
        waiting = Thread(target=write, name="waiting")
        waiting.start()
        assert is_waiting.wait(5)

        progress = ApiKey.objects.count()  # this thread reads on meanwhile

        assert not done.is_set()
        let_go()
        waiting.join()
    assert progress == 1
    assert set(sleeps) == {"waiting"}
    assert ApiKey.objects.get().name == "mine"


def test_many_writers_at_once_all_have_their_turn_and_lose_nothing(key: ApiKey) -> None:
    threads = Barrier(12)

    def count_up() -> None:
        threads.wait()
        for _ in range(10):
            with transaction.atomic():
                quota = Quota.objects.select_for_update().get(project=key.project)
                quota.last_used += 1  # read, change, save: safe under the lock alone
                quota.save()
            Quota.objects.filter(project=key.project).update(refusals_in_a_row=F("refusals_in_a_row") + 1)
        connections.close_all()

    with ThreadPoolExecutor(12) as executor:
        for done in [executor.submit(count_up) for _ in range(12)]:
            done.result()

    quota = Quota.objects.get(project=key.project)
    assert (quota.last_used, quota.refusals_in_a_row) == (120, 120)


def test_an_error_that_is_no_lock_comes_at_once() -> None:
    began = time.monotonic()

    with pytest.raises(OperationalError, match="no such table"), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM nowhere")

    assert time.monotonic() - began < 1


def test_a_transaction_that_failed_leaves_no_lock_behind(key: ApiKey) -> None:
    def break_off() -> None:
        with transaction.atomic():
            rename("mine")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()

    with closing(other_connection()) as other:
        other.execute("PRAGMA busy_timeout=0")
        other.execute("BEGIN IMMEDIATE")
        other.rollback()
    assert ApiKey.objects.get().name == ""


def test_claims_and_other_writers_take_turns(service: Ledger, pool: Pool) -> None:
    pool("one", "two")
    done = Event()

    def write_on() -> None:
        while not done.is_set():
            with transaction.atomic():
                rename("busy")
        connections.close_all()

    writer = Thread(target=write_on)
    writer.start()
    try:
        secrets = [claim_of(service).secret for _ in range(20)]
    finally:
        done.set()
        writer.join()

    assert secrets == [ONE, fake_secret("two")] * 10
