"""`.env` and the environment in every form: read correctly, or refused with the line or the variable."""

import codecs
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keymanager.env_file import Choices, Unreadable

ROOT = Path(__file__).resolve().parent.parent
NAME, TOKEN = "PLACEHOLDER_TOKEN", "t0ken-of-mine"
DEFAULT = "the-default"


def token_in(folder: Path, content: str | bytes, **environment: str) -> str:
    """Return the token that this `.env` and this environment give."""
    (folder / ".env").write_bytes(content if isinstance(content, bytes) else content.encode())
    choices = Choices(environment, folder / ".env")
    token = choices.text(NAME, DEFAULT, may_be_empty=True)
    choices.of_others()
    return token


@pytest.mark.parametrize(
    "content",
    [
        f"{NAME}={TOKEN}",
        f"{NAME}={TOKEN}\r\nDEBUG=off\r\n",
        f"DEBUG=off\r{NAME}={TOKEN}\r",
        f"\ufeff{NAME}={TOKEN}\n",
        f"{NAME} = {TOKEN} \t\n",
        f"  {NAME}= {TOKEN}",
        f"\u00a0{NAME}\u200b=\u200b{TOKEN}\u00a0\u200b",
        f"{NAME}={TOKEN} # mine",
        f"{NAME}={TOKEN}\t#mine",
        f'{NAME}="{TOKEN}" # "mine"',
        f'{NAME}="{TOKEN}"#mine',
        f"{NAME}='{TOKEN}'",
        f"{NAME}=`{TOKEN}`",
        f"{NAME}=\u201c{TOKEN}\u201d",
        f"{NAME}=\u201e{TOKEN}\u201c",
        f"{NAME}=\u2018{TOKEN}\u2019",
        f'{NAME}=" {TOKEN} "',
        f"export {NAME}={TOKEN}",
        f'export\t{NAME}="{TOKEN}";',
        f"set {NAME}={TOKEN}",
        f'set "{NAME}={TOKEN}"',
        f'$env:{NAME} = "{TOKEN}"',
        f"- {NAME}={TOKEN}",
        f"placeholder_token={TOKEN}",
        f"{NAME}: {TOKEN}",
        f'"{NAME}": "{TOKEN}"',
        f"{NAME}\uff1d{TOKEN}",
        f"{NAME}\uff1a{TOKEN}",
        f"# a comment\n\n   # another\n\uff03 a third\n{NAME}={TOKEN}",
        f"{NAME}={TOKEN}\n{NAME}='{TOKEN}'",
        f"HTTPS_PROXY=http://127.0.0.1:3128\n{NAME}={TOKEN}",
        b"# caf\xe9, as Latin-1 has it\n" + f"{NAME}={TOKEN}".encode(),
        codecs.BOM_UTF16_LE + f"{NAME}={TOKEN}\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + f"{NAME}={TOKEN}\r\n".encode("utf-16-be"),
    ],
)
def test_a_setting_is_read_however_it_is_written(tmp_path: Path, content: str | bytes) -> None:
    assert token_in(tmp_path, content) == TOKEN


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a#b", "a#b"),
        ("#ab", "#ab"),
        ('"a # b"', "a # b"),
        ("a=b=c==", "a=b=c=="),
        ("$ab", "$ab"),
        ("${HOME}", "${HOME}"),
        (r'"a\"b"', 'a"b'),
        (r"'a\b'", r"a\b"),
        ('a"b', 'a"b'),
        ("a b", "a b"),
        ("密钥", "密钥"),
        ("", ""),
        ('""', ""),
        ("# nothing", ""),
        (" #nothing", ""),
    ],
)
def test_a_value_is_read_exactly(tmp_path: Path, text: str, value: str) -> None:
    assert token_in(tmp_path, f"{NAME}={text}") == value
    assert token_in(tmp_path, "", **{NAME: text}) == value


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"{NAME} {TOKEN}", 1),
        (f"DEBUG=off\r\n{TOKEN}\r\n", 2),
        (f"DEBUG=off\rexport {NAME}\r", 2),
        (f"[service]\n{NAME}={TOKEN}", 1),
        (f"PLACEHOLDER TOKEN={TOKEN}", 1),
        (f"={TOKEN}", 1),
        (f'{NAME}="{TOKEN}', 1),
        (f"{NAME}='{TOKEN}\nsecond'", 1),
        (f'{{\n"{NAME}": "{TOKEN}"\n}}', 1),
        (f'{NAME}="{TOKEN}" {TOKEN}', 1),
        (f"{NAME}={TOKEN}\n\n{NAME}=another", 3),
        (f"{NAME}={TOKEN}\nplaceholder_token=another", 2),
        (f"{NAME}={TOKEN}\0", 1),
        (b"DEBUG=off\n" + f"{NAME}={TOKEN}".encode() + b"\xe9\n", 2),
        (f"{NAME}={TOKEN}\n".encode("utf-16-le"), 1),
        (f"\n\nPLACEHOLDERTOKEN={TOKEN}", 3),
        (f"PLACEHOLDER-TOKEN={TOKEN}", 1),
        (f"PLACEHOLDER_TOKENS={TOKEN}", 1),
        (f"PLACEHODLER_TOKEN={TOKEN}", 1),
        (f"PLACEHOLDER_GEMINI_TOKEN={TOKEN}", 1),
    ],
)
def test_a_line_that_cannot_be_understood_is_named_and_not_shown(
    tmp_path: Path, content: str | bytes, line: int
) -> None:
    with pytest.raises(Unreadable) as refusal:
        token_in(tmp_path, content)

    assert f".env, line {line}: " in str(refusal.value)
    assert TOKEN not in str(refusal.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="Save it as UTF-8"):
        token_in(tmp_path, codecs.BOM_UTF16_LE + b"odd")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()

    with pytest.raises(Unreadable, match=r"\.env cannot be read: Is a directory"):
        Choices({}, tmp_path / ".env")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything

    with pytest.raises(Unreadable, match=r"\.env cannot be read: Permission denied"):
        Choices({}, tmp_path / ".env")


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(tmp_path / "gone")

    with pytest.raises(Unreadable, match="link"):
        Choices({}, tmp_path / ".env")


def test_a_file_that_an_editor_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env.txt").write_text(f"{NAME}={TOKEN}\n")

    with pytest.raises(Unreadable, match=r"Rename it to \.env"):
        Choices({}, tmp_path / ".env")


@pytest.mark.parametrize("value", [f"'{TOKEN}'", f" {TOKEN}\r\n", f'"{TOKEN}"\r', f"\ufeff{TOKEN}", f"{TOKEN} # mine"])
def test_a_value_of_the_environment_is_read_in_odd_forms(tmp_path: Path, value: str) -> None:
    assert token_in(tmp_path, f"{NAME}=of-the-file", **{NAME: value}) == TOKEN


@pytest.mark.parametrize("value", [f'"{TOKEN}', f"{TOKEN}\udce9", f"'{TOKEN}'{TOKEN}"])
def test_a_value_of_the_environment_that_cannot_be_understood_is_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        token_in(tmp_path, "", **{NAME: value})

    assert NAME in str(refusal.value)
    assert TOKEN not in str(refusal.value)


@pytest.mark.parametrize("name", ["PLACEHOLDERTOKEN", "placeholder_token", "PLACEHOLDER_GEMINI_TOKEN"])
def test_a_name_of_the_environment_that_looks_like_the_token_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable, match=f"{name} in the environment is unknown. Did you mean {NAME}"):
        token_in(tmp_path, "", **{name: TOKEN})

    assert token_in(tmp_path, f"{NAME}={TOKEN}", **{name: "other"}) == TOKEN


def test_variables_for_libraries_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{NAME}={TOKEN}\nhttps_proxy=http://127.0.0.1:3128\nTZ='UTC'\n")
    choices = Choices({}, tmp_path / ".env")
    choices.text(NAME, DEFAULT)

    assert choices.of_others() == {"https_proxy": "http://127.0.0.1:3128", "TZ": "UTC"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, in which a test may write a `.env`."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "keymanager", folder / "keymanager", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", folder)
    for name in ("proxy", "templates"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def start(project: Path, environment: dict[bytes, bytes] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a process that prints the token and a proxy."""
    script = (
        "import os; from keymanager import settings as s; print(s.PLACEHOLDER_TOKEN, os.environ.get('HTTPS_PROXY'))"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=project, env=environment or {}, capture_output=True, text=True, check=False
    )


def test_settings_come_from_the_file(project: Path) -> None:
    (project / ".env").write_bytes(f"\ufeffHTTPS_PROXY=http://p\r\nset {NAME} = '{TOKEN}' # mine\r\n".encode())

    assert start(project).stdout.split() == [TOKEN, "http://p"]


@pytest.mark.parametrize("value", ["", " ", "''", "a\tb", "a\u200bb", "a\x1bb"])
def test_a_token_that_no_client_can_show_is_refused(project: Path, value: str) -> None:
    in_environment = start(project, {NAME.encode(): value.encode()})
    (project / ".env").write_text(f"{NAME}={value}\n")
    in_file = start(project)

    for done in (in_environment, in_file):
        assert done.returncode == 1
        assert not done.stdout
        assert f"ImproperlyConfigured: {NAME} " in done.stderr


def test_a_token_of_two_lines_is_refused(project: Path) -> None:
    done = start(project, {NAME.encode(): b"first\nsecond"})

    assert done.returncode == 1
    assert f"ImproperlyConfigured: {NAME} " in done.stderr


def test_bytes_that_are_not_text_are_refused(project: Path) -> None:
    done = start(project, {NAME.encode(): b"caf\xe9-token"})

    assert done.returncode == 1
    assert f"{NAME} in the environment: this is not UTF-8 text" in done.stderr
