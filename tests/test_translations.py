"""Pages, the admin and commands in Simplified Chinese: complete, and shown to those who ask for it."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from gettext import GNUTranslations
from pathlib import Path
from typing import NamedTuple

import pytest
from django.conf import settings as real_settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation
from pytest_django.fixtures import Settings

from proxy.models import ApiKey
from proxy.pool.adding import add_keys
from tests.conftest import fake_secret

ROOT = Path(__file__).resolve().parent.parent
PO = Path("proxy/locale/zh_Hans/LC_MESSAGES/django.po")
MARKS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext"}
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+.\d]*[a-zA-Z%]")
CHINESE = {"HTTP_ACCEPT_LANGUAGE": "zh-CN,zh;q=0.9"}


class Entry(NamedTuple):
    """A text and its translation. flags: from the line with `#,`, such as "fuzzy"."""

    text: str
    plural: str
    translated: str
    flags: str


def entries(path: Path) -> list[Entry]:
    """Return the entries of a .po file, without its header."""
    found = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        values = {"msgid": "", "msgid_plural": "", "msgstr": "", "#,": ""}
        name = ""
        for line in block.splitlines():
            if line.startswith("#,"):
                values["#,"] = line
            elif line.startswith("msg"):
                name, _space, text = line.partition(" ")
                name = name.partition("[")[0]
                values[name] = ast.literal_eval(text)
            elif line.startswith('"'):
                values[name] += ast.literal_eval(line)
        found.append(Entry(values["msgid"], values["msgid_plural"], values["msgstr"], values["#,"]))
    return [entry for entry in found if entry.text]


ENTRIES = entries(ROOT / PO)
TEXTS = {entry.text for entry in ENTRIES} | {entry.plural for entry in ENTRIES}


def test_every_text_is_translated_and_nothing_is_guessed() -> None:
    assert len(ENTRIES) > 300
    assert [entry.text for entry in ENTRIES if not entry.translated] == []
    assert [entry.text for entry in ENTRIES if "fuzzy" in entry.flags] == []


def test_translations_keep_what_is_filled_in() -> None:
    for entry in ENTRIES:
        wanted = sorted(PLACEHOLDER.findall(entry.plural or entry.text))
        if "python-format" in entry.flags:
            assert sorted(PLACEHOLDER.findall(entry.translated)) == wanted, entry.text


def test_the_compiled_translations_are_up_to_date() -> None:
    with (ROOT / PO.with_suffix(".mo")).open("rb") as file:
        compiled = GNUTranslations(file)

    for entry in ENTRIES:
        found = compiled.ngettext(entry.text, entry.plural, 2) if entry.plural else compiled.gettext(entry.text)
        assert found == entry.translated, "run manage.py compilemessages"


def test_every_text_in_python_is_among_them() -> None:
    """Including text inside an f-string, which xgettext does not find."""
    missing = []
    for path in [*(ROOT / "proxy").rglob("*.py"), *(ROOT / "keymanager").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
                texts = [ast.literal_eval(argument) for argument in node.args if isinstance(argument, ast.Constant)]
                missing += [f"{path.name}: {text}" for text in texts if text not in TEXTS]

    assert missing == []


@pytest.mark.skipif(shutil.which("xgettext") is None, reason="There is no xgettext here: apt-get install gettext.")
def test_every_extracted_text_is_translated(tmp_path: Path) -> None:
    for folder in ("keymanager", "proxy", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "manage.py", tmp_path)
    environ = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "LOG_DIR": "", "SECRET_KEY": "x"}

    command = [sys.executable, "manage.py", "makemessages", "-l", "zh_Hans", "--no-obsolete"]
    subprocess.run(command, cwd=tmp_path, env=environ, check=True, capture_output=True)

    assert {entry.text for entry in entries(tmp_path / PO)} == {entry.text for entry in ENTRIES}


# Pages


@pytest.fixture
def person(transactional_db: None) -> Client:
    """A client that is logged in, with a browser in Chinese. There is a key."""
    add_keys([fake_secret("one")], timezone.now())
    client = Client(**CHINESE)  # type: ignore[arg-type]  # they are headers
    client.force_login(User.objects.create_superuser("somebody"))
    return client


@pytest.fixture(autouse=True)
def speak_english_again() -> Iterator[None]:
    """Reset the language, which the last page has left active in this thread."""
    with translation.override("en"):
        yield


PAGES = {
    "proxy:overview": "可用密钥",
    "proxy:keys": "添加密钥",
    "proxy:exhaustion": "用尽的项目",
    "proxy:models": "已知限额",
    "proxy:requests": "请求",
    "proxy:health": "健康状况",
    "admin:index": "密钥与用量",
    "admin:proxy_apikey_changelist": "今日应答",
    "admin:proxy_apikey_add": "每行一个密钥",
    "admin:proxy_quota_changelist": "配额",
    "admin:proxy_dailyusage_changelist": "每日用量",
    "admin:proxy_exhaustionevent_changelist": "用尽记录",
}


@pytest.mark.parametrize(("name", "words"), PAGES.items())
def test_a_page_is_in_the_language_of_the_browser(person: Client, name: str, words: str) -> None:
    response = person.get(reverse(name))

    page = response.content.decode()
    assert response.status_code == 200
    assert 'lang="zh-hans"' in page
    assert words in page
    assert "Gemini 密钥管理器" in page


def test_the_page_of_a_key_is_in_chinese(person: Client) -> None:
    key = ApiKey.objects.get()

    assert f"密钥 {key.pk} …0one" in person.get(reverse("proxy:key", args=[key.pk])).content.decode()
    assert "向 Google 检查" in person.get(reverse("admin:proxy_apikey_change", args=[key.pk])).content.decode()


def test_the_language_can_be_chosen_whatever_the_browser_prefers(person: Client) -> None:
    person.post(reverse("set_language"), {"language": "en", "next": "/dashboard/"})
    assert 'lang="en"' in person.get("/dashboard/").content.decode()

    response = person.post(reverse("set_language"), {"language": "zh-hans", "next": "/dashboard/"})

    assert response.headers["Location"] == "/dashboard/"
    assert response.cookies["django_language"].value == "zh-hans"
    assert 'lang="zh-hans"' in person.get("/dashboard/", HTTP_ACCEPT_LANGUAGE="en").content.decode()


def test_errors_for_clients_stay_english(transactional_db: None) -> None:
    response = Client().get("/v1beta/models", **CHINESE)  # type: ignore[arg-type]

    assert response.status_code == 401
    assert response.content.isascii()


# Commands


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "nothing.txt 不存在。"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "不存在"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, "不存在"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "nothing.txt does not exist."),
        ({"LANG": "de_DE.UTF-8"}, "nothing.txt does not exist"),
        ({}, "nothing.txt does not exist"),
    ],
    ids=["LANG", "LC_ALL", "LANGUAGE", "LC_ALL wins", "German", "none"],
)
def test_a_command_uses_the_language_of_the_terminal(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    own = {"DATA_DIR": str(tmp_path), "LOG_DIR": "", "SECRET_KEY": "x", "PYTHONUTF8": "1"}
    command = [sys.executable, "manage.py", "importkeys", "nothing.txt"]

    done = subprocess.run(command, cwd=ROOT, env={**kept, **own, **variables}, check=False, capture_output=True)

    assert done.returncode == 1
    assert words in done.stderr.decode()


def test_the_help_of_a_command_is_translated(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings.TERMINAL_LANGUAGE = "zh-hans"
    for name in ("importkeys", "importusage", "exportusage", "checkkeys", "serve"):
        with pytest.raises(SystemExit):
            call_command(name, "--help")

        assert re.search(r"[\u4e00-\u9fff]{4}", capsys.readouterr().out), name


@pytest.mark.django_db
def test_the_output_of_a_command_is_translated_and_the_language_is_reset(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.TERMINAL_LANGUAGE = "zh-hans"
    (tmp_path / "key.txt").write_text(f"{fake_secret('one')}\nno key\n")
    (tmp_path / "usage.json").write_text("{}")

    with pytest.raises(CommandError, match="第 2 行"):
        call_command("importkeys", str(tmp_path / "key.txt"))
    with pytest.raises(CommandError, match=r"不是有效的 key_usage\.txt.缺少"):
        call_command("importusage", str(tmp_path / "usage.json"))

    assert re.fullmatch(r"已添加 1 个.0 个已在池中.1 个格式错误 \(第 2 行\)。\n", capsys.readouterr().out)
    assert translation.get_language() == real_settings.LANGUAGE_CODE
