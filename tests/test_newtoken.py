"""`manage.py newtoken` writes a token into `.env` and changes nothing else in it."""

import codecs
import os
import re
import shutil
import stat
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def env_file(tmp_path: Path, settings: Settings) -> Path:
    settings.BASE_DIR = tmp_path
    settings.TOKEN_IS_IN_ENVIRONMENT = False
    return tmp_path / ".env"


def new_token() -> str:
    out, err = StringIO(), StringIO()
    call_command("newtoken", stdout=out, stderr=err)
    token = out.getvalue().removesuffix("\n")
    assert re.fullmatch(r"[A-Za-z0-9_-]{40,}", token)
    assert "Restart the service" in err.getvalue()
    assert token not in err.getvalue()
    return token


def test_a_file_that_was_not_there_is_private(env_file: Path) -> None:
    first = new_token()
    assert env_file.read_text() == f"PLACEHOLDER_TOKEN={first}\n"
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600

    second = new_token()
    assert env_file.read_text() == f"PLACEHOLDER_TOKEN={second}\n"
    assert first != second


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "PLACEHOLDER_TOKEN={}\n"),
        ("A=1", "A=1\nPLACEHOLDER_TOKEN={}\n"),
        ("A=1\r\nB=2\r\n", "A=1\r\nB=2\r\nPLACEHOLDER_TOKEN={}\r\n"),
        ("A=1\nPLACEHOLDER_TOKEN=old\nB=2", "A=1\nPLACEHOLDER_TOKEN={}\nB=2"),
        ("A=1\r\nPLACEHOLDER_TOKEN='o l d' # mine\r\nB=2\r\n", "A=1\r\nPLACEHOLDER_TOKEN={}\r\nB=2\r\n"),
        ("export PLACEHOLDER_TOKEN=old\n", "export PLACEHOLDER_TOKEN={}\n"),
        ("  PLACEHOLDER_TOKEN = old\n", "  PLACEHOLDER_TOKEN={}\n"),
        ("set placeholder_token: old\n", "PLACEHOLDER_TOKEN={}\n"),
        ("'PLACEHOLDER_TOKEN'='old'\r", "PLACEHOLDER_TOKEN={}\r"),
        ("# Note.\n# PLACEHOLDER_TOKEN=X\n# A=1\n", "# Note.\nPLACEHOLDER_TOKEN={}\n# A=1\n"),
        ("#export PLACEHOLDER_TOKEN=X\n", "export PLACEHOLDER_TOKEN={}\n"),
        ("# PLACEHOLDER_TOKEN=X\nPLACEHOLDER_TOKEN=old\n", "# PLACEHOLDER_TOKEN=X\nPLACEHOLDER_TOKEN={}\n"),
        ("PLACEHOLDER_TOKEN=a\nPLACEHOLDER_TOKEN=b\n", "PLACEHOLDER_TOKEN={}\nPLACEHOLDER_TOKEN={}\n"),
        ("MY_PLACEHOLDER_TOKEN=a\n", "MY_PLACEHOLDER_TOKEN=a\nPLACEHOLDER_TOKEN={}\n"),
        ("PLACEHOLDER_TOKENS=a\n", "PLACEHOLDER_TOKENS=a\nPLACEHOLDER_TOKEN={}\n"),
    ],
)
@pytest.mark.parametrize(
    ("bom", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_everything_else_stays_as_it_was(env_file: Path, before: str, after: str, bom: bytes, encoding: str) -> None:
    env_file.write_bytes(bom + before.encode(encoding))

    token = new_token()

    assert env_file.read_bytes() == bom + after.replace("{}", token).encode(encoding)


def test_what_is_no_utf_8_stays_too(env_file: Path) -> None:
    env_file.write_bytes(b"# Schl\xfcssel\nPLACEHOLDER_TOKEN=old\n")

    token = new_token()

    assert env_file.read_bytes() == f"# Schlüssel\nPLACEHOLDER_TOKEN={token}\n".encode("latin-1")


def test_who_may_read_the_file_may_still(env_file: Path) -> None:
    env_file.write_text("A=1\n")
    env_file.chmod(0o640)

    new_token()

    assert stat.S_IMODE(env_file.stat().st_mode) == 0o640


def test_a_token_from_the_environment_is_not_undermined(env_file: Path, settings: Settings) -> None:
    settings.TOKEN_IS_IN_ENVIRONMENT = True

    with pytest.raises(CommandError, match=r"is set in the environment, which overrides \.env"):
        call_command("newtoken")

    assert not env_file.exists()


@pytest.mark.parametrize(
    "spoil", [lambda path: path.mkdir(), lambda path: path.write_bytes(codecs.BOM_UTF16_LE + b"x")]
)
def test_an_unreadable_file_is_reported_in_one_sentence(env_file: Path, spoil: object) -> None:
    spoil(env_file)  # type: ignore[operator]

    with pytest.raises(CommandError, match=r"\.env (cannot be read|is not text)"):
        call_command("newtoken")


def test_the_next_start_knows_the_token(tmp_path: Path) -> None:
    for name in ("keymanager", "proxy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "manage.py", tmp_path)
    (tmp_path / ".env").write_text("LOG_DIR=\nPLACEHOLDER_TOKEN=old\n")
    names = {"PATH": os.environ.get("PATH", os.defpath)}

    def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=names | variables, capture_output=True, text=True, check=False)

    done = manage("newtoken")
    asked = manage("shell", "--no-imports", "-c", "from django.conf import settings; print(settings.PLACEHOLDER_TOKEN)")
    refused = manage("newtoken", PLACEHOLDER_TOKEN="another")

    assert done.returncode == 0
    assert len(done.stdout.splitlines()[-1]) >= 40
    assert asked.stdout == done.stdout
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("CommandError: PLACEHOLDER_TOKEN is set in the environment")


def test_git_leaves_backups_and_settings_alone(tmp_path: Path) -> None:
    """No file of the project is ignored, and every file with secrets is."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    secret = [".env", ".env.local", "backup.sqlite3", "backup-1", "x/y.sqlite3-wal", "key.txt", "data/secret_key"]
    ours = [".env.example", "proxy/management/commands/backup.py", "tests/test_backup.py"]

    shown = subprocess.run([*git, "check-ignore", *secret, *ours], capture_output=True, text=True, check=False).stdout

    assert shown.split() == secret
