"""Backups while the service runs, and restoring them. Whatever happens, one complete database is left."""

import errno
import os
import shutil
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from proxy.sqlite.base import Database
from proxy.sqlite.copies import copy_database, publish
from tests.fake_gemini import FakeGemini
from tests.service import ROOT, SECRETS, Service, eventually, running

pytestmark = [pytest.mark.process, pytest.mark.sqlite]

FILLER = (
    "CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
    "SELECT i, randomblob(1000) AS blob FROM n"
)
# Runs a command, and kills itself at the nth change to a name in a folder.
KILL = """
import os, signal, sys
left = int(sys.argv.pop(1))
def watch(event, arguments):
    global left
    if event in ("os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
os.environ["DJANGO_SETTINGS_MODULE"] = "keymanager.settings"
from django.core.management import execute_from_command_line
import django
django.setup()
sys.addaudithook(watch)
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the migrated database and the keys."""
    with Service(tmp_path_factory.mktemp("prepared"), "http://127.0.0.1:9") as service:
        service.manage("importkeys", str(service.folder / "key.txt"))
        return service.folder / "data"


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini, prepared: Path) -> Iterator[Service]:
    """A service that is not running."""
    with Service(tmp_path, gemini) as service:
        shutil.copytree(prepared, tmp_path / "data", dirs_exist_ok=True)
        yield service


def question(database: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def names(database: Path) -> list[str]:
    """Return the names of the keys in a database, which must be intact."""
    assert question(database, "PRAGMA integrity_check") == [("ok",)]
    return [str(name) for (name,) in question(database, "SELECT DISTINCT name FROM proxy_apikey")]


def name_keys(service: Service, name: str) -> None:
    service.execute(f"UPDATE proxy_apikey SET name = '{name}'")


def leave_in_wal(service: Service, name: str) -> None:
    """Name the keys the way a killed service would leave them: the changes are only in the WAL."""
    copy = service.folder / "copy"
    with closing(sqlite3.connect(service.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"UPDATE proxy_apikey SET name = '{name}'")
        shutil.copytree(service.database.parent, copy)
    shutil.rmtree(service.database.parent)
    copy.rename(service.database.parent)
    assert Path(f"{service.database}-wal").stat().st_size


def kept(service: Service) -> list[Path]:
    return sorted(service.database.parent.glob("*.before-restore-*"))


def test_a_backup_made_under_load_restores_unchanged(tmp_path: Path, gemini: FakeGemini) -> None:
    backup = tmp_path / "backup.sqlite3"
    with running(tmp_path, gemini) as service:
        service.execute(FILLER)
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(service.ask) for _ in range(300)]
            assert eventually(lambda: sum(gemini.accepted.values()) > 30)
            before = sum(service.answers().values())
            output = service.manage("backup", str(backup))
            after = sum(gemini.accepted.values())
            statuses = {answer.result().status_code for answer in asked}
        [(answers,)] = question(backup, "SELECT SUM(answers) FROM proxy_dailyusage")
        assert statuses == {200}
        assert output.startswith(f"Backed up 5 keys and 1 day of usage to {backup} (")
        assert "clear text: keep it private" in output
        assert output.count("\n") == 1
        assert not any(secret in output for secret in SECRETS)
        assert isinstance(answers, int)
        assert before <= answers <= after
        assert sum(service.answers().values()) == 300
        service.stop()

        output = service.manage("restore", str(backup))

        assert output.startswith(f"Restored 5 keys and 1 day of usage from {backup}. ")
        assert sum(service.answers().values()) == answers
        [old] = kept(service)
        assert question(old, "SELECT SUM(answers) FROM proxy_dailyusage") == [(300,)]
        service.start().wait_until_ready()
        assert service.ask().status_code == 200
        assert eventually(lambda: sum(service.answers().values()) == answers + 1)


def test_a_backup_ends_however_often_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, copy = tmp_path / "db", tmp_path / "copy"
    with closing(Database.connect(database, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute(FILLER)
        written: list[object] = []

        def write(_: float) -> None:
            assert len(written) < 200, "The copy begins again and again."
            written.append(writer.execute("UPDATE filler SET i = -1 WHERE rowid = 1"))

        monkeypatch.setattr("proxy.sqlite.copies.time.sleep", write)
        copy_database(database, copy)

    assert written
    assert question(copy, "SELECT i FROM filler WHERE rowid = 1") == [(1,)]


def test_a_backup_is_one_private_file_and_overwrites_none(service: Service) -> None:
    backup = service.folder / "my backups" / "one?mode=memory.sqlite3"
    backup.parent.mkdir()

    service.manage("backup", str(backup))
    mistake = service.mistake("backup", str(backup))

    assert mistake == f"{backup} already exists. Choose another name."
    assert list(backup.parent.iterdir()) == [backup]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert backup.read_bytes()[18:20] == b"\1\1"  # not in WAL mode
    assert names(backup) == [""]


def test_two_backups_at_once_do_not_overwrite_each_other(service: Service) -> None:
    backup = str(service.folder / "backup.sqlite3")
    service.execute(FILLER)

    with ThreadPoolExecutor(2) as threads:
        codes = sorted(
            done.returncode for done in threads.map(lambda _: service.run("manage.py", "backup", backup), "12")
        )

    assert codes == [0, 1]
    assert names(Path(backup)) == [""]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_appeared_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    one, two, path = tmp_path / "one", tmp_path / "two", tmp_path / "backup"
    one.write_text("one")
    two.write_text("two")

    publish(one, path)
    with pytest.raises(FileExistsError):
        publish(two, path)

    assert path.read_text() == "one"
    assert two.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_backup_that_is_stopped_leaves_nothing(service: Service, number: int) -> None:
    folder = service.folder / "backups"
    folder.mkdir()
    service.execute(FILLER.replace("20000", "200000"))
    command = [sys.executable, "manage.py", "backup", str(folder / "backup.sqlite3")]
    with Popen(command, cwd=ROOT, env=service.environment, stderr=PIPE, text=True) as process:
        assert eventually(lambda: list(folder.glob(".*/copy.sqlite3")) or process.poll() is not None)
        process.send_signal(number)
        _out, output = process.communicate()

    assert output == "CommandError: Stopped. No backup was written.\n"
    assert process.returncode == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_full_disk_is_reported_in_one_sentence_and_leaves_no_file(service: Service, command: str) -> None:
    backup = service.folder / "backups" / "backup.sqlite3"
    backup.parent.mkdir()
    service.execute(FILLER)
    if command == "restore":
        service.manage("backup", str(backup))
        name_keys(service, "now")
    script = f"""
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv = ["manage.py", {command!r}, {str(backup)!r}]
exec(open("manage.py").read())
"""

    done = service.run("-c", script)

    assert done.returncode == 1
    output = f"CommandError: {backup} cannot be {'written' if command == 'backup' else 'restored'}: "
    assert done.stderr.startswith(output)
    assert done.stderr.count("\n") == 1
    assert backup.exists() == (command == "restore")
    assert not [*backup.parent.glob(".*"), *service.database.parent.glob(".*"), *kept(service)]
    assert names(service.database) == ["now" if command == "restore" else ""]


def test_of_a_damaged_database_there_is_no_backup(service: Service) -> None:
    service.database.write_bytes(service.database.read_bytes()[:8192] + b"\xff" * 100_000)
    backup = service.folder / "backup.sqlite3"

    assert service.mistake("backup", str(backup)) == f"{service.database} is damaged."
    service.database.write_bytes(b"x" * 10_000)
    assert service.mistake("backup", str(backup)) == f"{service.database} is damaged."
    assert not backup.exists()


def test_an_impossible_path_is_reported_in_one_sentence(service: Service) -> None:
    assert service.mistake("backup", str(service.folder / "no" / "b")).endswith("No such file or directory.")
    assert service.mistake("backup", "/proc/b").startswith("/proc/b cannot be written: ")
    assert "already exists" in service.mistake("backup", str(service.folder))
    assert "Give a file name" in service.mistake("backup", "-")


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_another_engine_is_referred_to_its_own_tools(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.postgresql")

    with pytest.raises(CommandError, match="pg_dump"):
        call_command(command, str(tmp_path / "b"))


@pytest.mark.parametrize("way", ["serve", "gunicorn", "runserver"])
def test_nothing_is_restored_while_the_service_runs(service: Service, way: str) -> None:
    backup = service.folder / "backup.sqlite3"
    service.manage("backup", str(backup))
    arguments = [way, f"127.0.0.1:{service.port}", "--noreload"] if way == "runserver" else [way]
    service.start(*arguments).wait_until_ready("/healthz")

    assert "service is running" in service.mistake("restore", str(backup))
    assert service.is_answering()
    service.kill()

    assert service.manage("restore", str(backup)).startswith("Restored 5 keys and 0 days of usage")


def test_the_service_counts_as_running_until_its_last_worker_ends(service: Service, gemini: FakeGemini) -> None:
    backup = service.folder / "backup.sqlite3"
    service.manage("backup", str(backup))
    service.start().wait_until_ready("/healthz")
    workers = service.workers
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    service.kill_one(service.pid)

    assert "service is running" in service.mistake("restore", str(backup))


def test_the_service_does_not_start_during_a_restore(service: Service) -> None:
    script = """
import fcntl, sys, time
file = open(sys.argv[1] + ".lock", "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", script, str(service.database)]
    with Popen(command, stdout=PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        for program in (["manage.py", "serve"], ["-m", "gunicorn"]):
            done = service.run(*program)
            assert done.returncode == 1
            assert done.stderr == "The database is being restored. Start the service after that.\n"
        process.kill()


def test_a_database_that_others_have_open_is_not_replaced(service: Service) -> None:
    backup = service.folder / "backup.sqlite3"
    service.manage("backup", str(backup))
    name_keys(service, "now")
    with closing(sqlite3.connect(service.database, isolation_level=None)) as shell:
        shell.execute("SELECT * FROM proxy_apikey").fetchall()
        assert "has the database open" in service.mistake("restore", str(backup))

    assert names(service.database) == ["now"]


def test_the_old_wal_is_kept_and_not_applied_to_the_new_database(service: Service) -> None:
    backup = service.folder / "backup.sqlite3"
    name_keys(service, "then")
    service.manage("backup", str(backup))
    leave_in_wal(service, "now")

    output = service.manage("restore", str(backup))

    [old] = kept(service)
    assert str(old) in output
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert stat.S_IMODE(service.database.stat().st_mode) == 0o600
    assert (names(service.database), names(old)) == (["then"], ["now"])


def test_a_killed_restore_leaves_one_complete_database(service: Service) -> None:
    backup = service.folder / "backup.sqlite3"
    name_keys(service, "then")
    service.manage("backup", str(backup))
    leave_in_wal(service, "now")
    data, saved = service.database.parent, service.folder / "saved"
    shutil.copytree(data, saved)
    left = []
    for number in range(1, 40):
        shutil.rmtree(data)
        shutil.copytree(saved, data)
        done = service.run("-c", KILL, str(number), "restore", str(backup))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        left += names(service.database)
    service.manage("restore", str(backup))

    assert len(left) > 5
    assert left == sorted(left)  # all of "now", then all of "then"
    assert set(left) == {"now", "then"}
    assert not list(data.glob(".*"))


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:5000], lambda data: b"x" * 9000, lambda data: data[:100] + b"\xff" * 8000],
    ids=["empty", "truncated", "text", "overwritten"],
)
def test_a_damaged_database_is_replaced_and_kept(service: Service, damage: Callable[[bytes], bytes]) -> None:
    backup = service.folder / "backup.sqlite3"
    name_keys(service, "then")
    service.manage("backup", str(backup))
    leave_in_wal(service, "now")
    service.database.write_bytes(damage(service.database.read_bytes()))
    content = service.database.read_bytes()

    service.manage("restore", str(backup))

    assert sorted(path.name for path in service.database.parent.glob("keymanager.sqlite3-*")) == []
    assert names(service.database) == ["then"]
    assert kept(service)
    if content.startswith(b"x"):  # not even SQLite's: byte by byte, with the WAL
        assert [path.read_bytes() == content for path in kept(service)] == [True, False]


def test_a_database_that_was_lost_is_replaced(service: Service) -> None:
    backup = service.folder / "backup.sqlite3"
    service.manage("backup", str(backup))
    shutil.rmtree(service.database.parent)

    assert service.manage("restore", str(backup)) == f"Restored 5 keys and 0 days of usage from {backup}.\n"
    assert names(service.database) == [""]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "{path} does not exist."),
        (lambda path: (path.unlink(), path.mkdir()), "{path} is not a file."),
        (lambda path: path.write_bytes(b""), "{path} is not an SQLite database."),
        (lambda path: path.write_text("AIza…\n" * 1000), "{path} is not an SQLite database."),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "{path} is damaged."),
        (lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 100_000), "{path} is damaged."),
        (
            lambda path: change(path, "DROP TABLE proxy_dailyusage"),
            "{path} is not a database of this service.",
        ),
        (
            lambda path: change(path, "UPDATE django_migrations SET name = '0999_x' WHERE name LIKE '0012%'"),
            "{path} is from a newer version of this service.",
        ),
        (
            lambda path: change(path, "UPDATE proxy_apikey SET project_id = 99"),
            "{path} is damaged.",
        ),
    ],
    ids=["missing", "folder", "empty", "text", "truncated", "overwritten", "foreign", "newer", "inconsistent"],
)
def test_a_file_that_is_not_a_backup_is_refused_in_one_sentence(
    service: Service, spoil: Callable[[Path], object], sentence: str
) -> None:
    backup = service.folder / "backup.sqlite3"
    service.manage("backup", str(backup))
    name_keys(service, "now")
    spoil(backup)

    assert service.mistake("restore", str(backup)) == sentence.format(path=backup)
    assert names(service.database) == ["now"]
    assert not kept(service)
    assert not list(service.database.parent.glob(".*"))


def test_the_database_itself_is_no_backup_of_it(service: Service) -> None:
    assert "is the database itself" in service.mistake("restore", str(service.database))


def test_a_backup_of_an_older_version_is_migrated(service: Service) -> None:
    service.manage("migrate", "proxy", "0011", "--verbosity", "0")
    backup = service.folder / "backup.sqlite3"
    service.manage("backup", str(backup))

    service.manage("restore", str(backup))

    assert question(service.database, "SELECT 1 FROM django_migrations WHERE name LIKE '0012%' AND app = 'proxy'")
    assert service.start().wait_until_ready().ask().status_code == 200
