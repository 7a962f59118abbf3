"""Settings that cannot work: one sentence that names them, exit status 1, and no traceback, however one starts."""

import os
import shutil
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.started import run

# Root may do everything: as others are, it loses that here.
AS_OTHERS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
needs_setpriv = pytest.mark.skipif(bool(AS_OTHERS) and not shutil.which("setpriv"), reason="root needs setpriv")
WAYS = {
    "check": ["manage.py", "check"],
    "serve": ["manage.py", "serve"],
    "runserver": ["manage.py", "runserver", "127.0.0.1:0"],
    "checkkeys": ["manage.py", "checkkeys"],
    "gunicorn": ["-m", "gunicorn"],
}


def assert_refused(done: CompletedProcess[str], *words: str) -> None:
    output = done.stderr
    assert done.returncode == 1, done.stdout + output
    assert "Traceback" not in output
    for word in words:
        assert word in output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUOTA_TIME_ZONE", "Mars/Base"),
        ("QUOTA_TIME_ZONE", "../../etc/passwd"),
        ("MAX_BODY_MB", "-1"),
        ("MAX_BODY_MB", "nan"),
        ("MAX_BODY_MB", "large"),
        ("READ_TIMEOUT_SECONDS", "0"),
        ("GRACEFUL_SECONDS", "-5"),
        ("WEB_WORKERS", "abc"),
        ("WEB_WORKERS", "0"),
        ("WEB_WORKERS", "-1"),
        ("WEB_WORKERS", "1000"),
        ("WEB_WORKERS", "1.5"),
        ("EXHAUSTED_STATUS", "42"),
        ("EXHAUSTED_STATUS", "soon"),
        ("UPSTREAM_URL", "nonsense"),
        ("UPSTREAM_URL", "ftp://example.org"),
        ("UPSTREAM_URL", "https://example.org:port"),
        ("UPSTREAM_URL", "https://"),
        ("UPSTREAM_URL", "https://example.org/v1beta?key=a"),
        ("UPSTREAM_URL", "https://example.org/#a"),
        ("HTTPS_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "http://name:12/word@127.0.0.1:1"),
        ("PLACEHOLDER_TOKEN", " "),
        ("BIND", "localhost"),
        ("BIND", "0.0.0.0:http"),
        ("BIND", "0.0.0.0:99999"),
        ("BIND", "0.0.0.0:0"),
        ("BIND", "0.0.0.0.0:5000"),
        ("BIND", "::1:5000"),
        ("BIND", "[::1:5000"),
        ("BIND", "[::g]:5000"),
        ("BIND", "unix:/run/keymanager.sock"),
        ("BIND", "unix:"),
        ("BIND", "http://0.0.0.0:5000"),
        ("LOG_LEVEL", "verbose"),
        ("LOG_DIR", "/dev/null"),
        ("DATA_DIR", "/dev/null"),
        ("DATA_DIR", "/proc/keymanager"),
        ("KEY_FILE", "keymanager"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mongodb://localhost/keys"),
        ("DATABASE_URL", "postgres://localhost:port/keys"),
        ("ALLOWED_HOSTS", "https://keys.example.com"),
        ("ALLOWED_HOSTS", "keys.example.com:443"),
        ("CSRF_TRUSTED_ORIGINS", "example.org"),
        ("CSRF_TRUSTED_ORIGINS", "https://example.org/admin"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("SHOW_KEY_NAMES", "maybe"),
        ("BARE_429", "hour"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_clear_sentence(tmp_path: Path, name: str, value: str) -> None:
    assert_refused(run(tmp_path, "manage.py", "check", **{name: value}), name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "value"), [("WEB_WORKERS", "0"), ("UPSTREAM_URL", "nonsense")])
def test_a_refusal_is_the_same_however_one_starts(tmp_path: Path, way: str, name: str, value: str) -> None:
    assert_refused(run(tmp_path, *WAYS[way], **{name: value}), name)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "check"])
def test_a_database_in_no_folder_is_reported(tmp_path: Path, way: str) -> None:
    done = run(tmp_path, *WAYS[way], DATABASE_URL="sqlite:////dev/null/keys.sqlite3")

    assert_refused(done, "unable to open database file", "DATABASE_URL")


@pytest.mark.parametrize("way", [way for way in WAYS if way != "check"])
def test_a_corrupt_database_is_reported(tmp_path: Path, way: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "keymanager.sqlite3").write_bytes(b"no database at all" * 1000)

    assert_refused(run(tmp_path, *WAYS[way]), "file is not a database", "DATA_DIR")


@pytest.mark.parametrize("way", ["serve", "runserver", "gunicorn"])
def test_the_database_of_another_program_is_left_alone(tmp_path: Path, way: str) -> None:
    with closing(sqlite3.connect(tmp_path / "other.sqlite3")) as connection:
        connection.execute("CREATE TABLE songs (name)")

    done = run(tmp_path, *WAYS[way], DATABASE_URL=f"sqlite:///{tmp_path / 'other.sqlite3'}")

    assert_refused(done, "belongs to another program", "DATABASE_URL")


@pytest.mark.parametrize("way", ["serve", "runserver", "gunicorn", "checkkeys"])
def test_a_database_server_that_is_away_is_reported(tmp_path: Path, way: str) -> None:
    done = run(tmp_path, *WAYS[way], DATABASE_URL="postgres://name:word@127.0.0.1:1/keys")

    assert_refused(done)
    assert len(done.stderr.strip().splitlines()) <= 12
    assert "word@" not in done.stderr


@needs_setpriv
@pytest.mark.parametrize("way", ["check", "serve", "gunicorn"])
@pytest.mark.parametrize("name", ["DATA_DIR", "LOG_DIR"])
def test_a_folder_that_we_may_not_write_is_reported(tmp_path: Path, name: str, way: str) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o500)

    assert_refused(run(tmp_path, *WAYS[way], before=AS_OTHERS, **{name: str(folder)}), name, "cannot write")


@needs_setpriv
@pytest.mark.parametrize(("name", "file"), [("LOG_DIR", "keymanager.log"), ("DATA_DIR", "secret_key")])
def test_a_file_that_we_may_not_open_is_reported(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).touch(mode=0o000)

    assert_refused(run(tmp_path, "manage.py", "check", before=AS_OTHERS, **{name: str(tmp_path)}), name, file)


@needs_setpriv
@pytest.mark.parametrize("way", ["serve", "importkeys"])
def test_a_database_that_we_may_not_write_is_reported(tmp_path: Path, way: str) -> None:
    assert run(tmp_path, "manage.py", "migrate").returncode == 0
    (tmp_path / "data" / "keymanager.sqlite3").chmod(0o400)
    (tmp_path / "keys").write_text("AIza" + "x" * 35)
    command = ["manage.py", "importkeys", str(tmp_path / "keys")] if way == "importkeys" else WAYS[way]

    done = run(tmp_path, *command, before=AS_OTHERS, BIND="127.0.0.1:0", KEY_FILE=str(tmp_path / "keys"))

    assert_refused(done)


def test_an_address_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"127.0.0.1:{listener.getsockname()[1]}"

        assert_refused(run(tmp_path, "manage.py", "serve", BIND=bind), bind, "BIND")


@needs_setpriv
def test_a_port_that_only_root_may_take_is_reported(tmp_path: Path) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("everybody may take it here")

    assert_refused(run(tmp_path, "manage.py", "serve", before=AS_OTHERS, BIND="127.0.0.1:80"), "BIND", "denied")


def test_a_short_secret_is_warned_of(tmp_path: Path) -> None:
    done = run(tmp_path, "manage.py", "check", SECRET_KEY="short")

    assert done.returncode == 0
    assert "SECRET_KEY is too short" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BIND", ":5001"),
        ("WEB_WORKERS", ""),
        ("CSRF_TRUSTED_ORIGINS", "https://a.example/"),
        ("ALLOWED_HOSTS", "[::1]"),
    ],
)
def test_a_value_that_can_mean_only_one_thing_is_taken(tmp_path: Path, name: str, value: str) -> None:
    assert run(tmp_path, "manage.py", "check", **{name: value}).returncode == 0


@pytest.mark.parametrize("arguments", [["serve"], ["runserver"], ["help"]])
def test_windows_is_told_that_it_is_not_supported(tmp_path: Path, arguments: Sequence[str]) -> None:
    script = (
        "import os, runpy, sys; os.name = 'nt'; sys.argv[0] = 'manage.py'; "
        "runpy.run_path('manage.py', run_name='__main__')"
    )

    done = run(tmp_path, "-c", script, *arguments)

    assert_refused(done, "does not run on Windows", "WSL", "Docker")
    assert len(done.stderr.strip().splitlines()) == 1
