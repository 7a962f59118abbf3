"""Every setting is documented with its default, and refused in one sentence if it makes no sense."""

import ast
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keymanager.settings import _bind, _upstream
from tests.started import run

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[A-Z][A-Z0-9_]+")


def defaults_in_settings() -> dict[str, Any]:
    """Return each variable that settings.py reads, with its default, or None if that is not a plain number or text."""
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse((ROOT / "keymanager" / "settings.py").read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        name = node.args[0].value
        function = ast.unparse(node.func)
        if isinstance(name, str) and NAME.fullmatch(name) and (function.startswith("env.") or function[0] == "_"):
            default = node.args[1] if len(node.args) > 1 else None
            found[name] = default.value if isinstance(default, ast.Constant) else None
    return found


def rows_in(document: str) -> dict[str, str]:
    """Return the defaults by name, from the tables of a document: | `NAME` | default | meaning |."""
    rows: dict[str, str] = {}
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3 and NAME.fullmatch(name := cells[0].strip("`")):
            assert name not in rows, f"{document} has {name} twice"
            rows[name] = cells[1]
    return rows


def shown(default: Any) -> str:
    """Return a default as it is written in the documents."""
    return f"`{('off', 'on')[default]}`" if isinstance(default, bool) else f"`{default}`"


@pytest.mark.parametrize("document", ["docs/settings.md", "docs/zh/settings.md"])
def test_the_settings_page_has_a_row_for_exactly_the_variables_that_are_read(document: str) -> None:
    assert set(rows_in(document)) == set(defaults_in_settings())


@pytest.mark.parametrize("document", ["docs/settings.md", "docs/zh/settings.md"])
def test_the_settings_page_shows_the_true_defaults(document: str) -> None:
    rows = rows_in(document)
    plain = {name: shown(default) for name, default in defaults_in_settings().items() if default not in (None, "")}

    assert {name: rows[name] for name in plain} == plain


@pytest.mark.parametrize(
    ("readme", "document"), [("README.md", "docs/settings.md"), ("README_zh.md", "docs/zh/settings.md")]
)
def test_the_readme_shows_some_rows_of_the_settings_page(readme: str, document: str) -> None:
    few, all_rows = rows_in(readme), rows_in(document)

    assert 8 <= len(few) <= 10
    assert few.items() <= all_rows.items()


def test_the_example_has_exactly_the_variables_of_the_settings_page_in_its_order() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")

    assert re.findall(r"^(?:# ?)?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE) == list(rows_in("docs/settings.md"))


def test_the_example_shows_the_true_defaults() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    example = dict(re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    plain = {name: shown(default) for name, default in defaults_in_settings().items() if default is not None}

    assert {name: f"`{example[name]}`" for name in plain} == plain


@pytest.mark.parametrize(
    ("url", "used", "cut"),
    [
        ("https://example.org/v1beta", "https://example.org", "/v1beta"),
        ("https://example.org/v1", "https://example.org", "/v1"),
        ("https://example.org/v1alpha/", "https://example.org", "/v1alpha"),
        ("https://example.org/v1beta/openai/", "https://example.org", "/v1beta/openai"),
        ("https://example.org//v1beta/models/", "https://example.org", "//v1beta/models"),
        ("https://example.org/gemini/v1beta2", "https://example.org/gemini", "/v1beta2"),
        ("https://example.org/", "https://example.org", ""),
        (" 'https://example.org' ", "https://example.org", ""),
        ("https://example.org/v1/account/google", "https://example.org/v1/account/google", ""),
        ("https://v1.example.org", "https://v1.example.org", ""),
    ],
)
def test_the_address_of_the_upstream_ends_before_the_version(
    monkeypatch: pytest.MonkeyPatch, url: str, used: str, cut: str
) -> None:
    monkeypatch.setenv("UPSTREAM_URL", url)

    assert _upstream("UPSTREAM_URL", "") == (used, cut)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("5001", "0.0.0.0:5001"),
        (":5001", "0.0.0.0:5001"),
        ("*:5001", "0.0.0.0:5001"),
        ("127.0.0.1:5001 , [::1]:5001", "127.0.0.1:5001,[::1]:5001"),
        ("localhost:5001", "localhost:5001"),
        ("localhost", "localhost"),
    ],
)
def test_a_port_alone_means_all_interfaces(monkeypatch: pytest.MonkeyPatch, text: str, used: str) -> None:
    monkeypatch.setenv("BIND", text)

    assert _bind("BIND", "") == used


def test_a_secret_key_is_made_once_also_when_many_start_together(tmp_path: Path) -> None:
    script = "from django.conf import settings; print(settings.SECRET_KEY)"
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=os.environ | {"DATA_DIR": str(tmp_path / "data"), "LOG_DIR": "", "SECRET_KEY": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    [secret] = {start.communicate(timeout=60)[0].strip() for start in starts}

    path = tmp_path / "data" / "secret_key"
    assert len(secret) > 50
    assert path.read_text().strip() == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["secret_key"]


def test_no_secret_reaches_the_log_whoever_writes_it(tmp_path: Path) -> None:
    secret = "AIza" + "S" * 35
    script = f"""
import logging, django
django.setup()
for name in ("proxy.relay", "django.server", "django.request", "gunicorn.error", ""):
    logging.getLogger(name).error("GET /v1beta/models?alt=sse&key=%s HTTP/1.1 by %s", "a-client-s-token", "{secret}")
"""
    done = run(tmp_path, "-c", script, LOG_DIR=str(tmp_path / "logs"), PLACEHOLDER_TOKEN="a-client-s-token")

    written = (tmp_path / "logs" / "keymanager.log").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert written.count("GET /v1beta/models?alt=sse&key=… HTTP/1.1 by …SSSS") == 5
    assert done.stderr.count("GET /v1beta/models?alt=sse&key=… HTTP/1.1 by …SSSS") == 5
    assert "a-client-s-token" not in written + done.stdout + done.stderr
    assert secret not in written + done.stdout + done.stderr


def test_without_a_folder_for_logs_the_console_is_all(tmp_path: Path) -> None:
    script = "from django.conf import settings; print(sorted(settings.LOGGING['handlers']))"

    done = run(tmp_path, "-c", script, LOG_DIR="")

    assert done.stdout.strip() == "['console']"
