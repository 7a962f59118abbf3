"""`.env` as people write it, and values as the environment brings them; no message holds a name or a value of theirs.

One rule holds for both: blanks and quotes around a value are taken off, and so is a comment after it.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

# Besides what `str.strip` takes: zero-width characters and byte order marks, which editors and web pages leave behind.
_BLANK = r"[\s\u200b-\u200f\u2060\ufeff]"
_BLANKS = re.compile(rf"\A{_BLANK}+|{_BLANK}+\Z")
_PREFIX = re.compile(rf"(?:(?:export|set|env|-){_BLANK}+|\$env:)", re.IGNORECASE)
_SETTING = re.compile(rf"(['\"]?)([A-Za-z_][\w.-]*)\1{_BLANK}*(?:[=\uff1d]|[:\uff1a](?!//))(.*)", re.ASCII)
_WHOLLY_QUOTED = re.compile(r"(['\"])([A-Za-z_][\w.-]*=.*)\1")
_COMMENT = re.compile(rf"(?:\A[#\uff03](?={_BLANK}|\Z)|{_BLANK}[#\uff03]).*", re.DOTALL)
_LINE_END = re.compile(r"\r\n|\r|\n")
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")  # surrogates stand for bytes that are not UTF-8
_ESCAPED = re.compile(r"\\([\"\\$`])")
# A word processor turns one of a row into another of it.
_DOUBLE, _SINGLE, _BACK = '"\u201c\u201d\u201e\u201f', "'\u2018\u2019\u201a\u201b", "`"
_ENCODINGS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_TOKEN = "PLACEHOLDER_TOKEN"  # noqa: S105  # the name of the setting


class Unreadable(ImproperlyConfigured):
    """A file, a line or a value that cannot be understood; the message says which one, and what to do."""


class Setting(NamedTuple):
    """A line of `.env`: its number, the name as written, and the value without quotes and comment."""

    line: int
    name: str
    value: str


class Choices:
    """What a deployment chose: the environment first, then `.env`. Everything raises Unreadable."""

    def __init__(self, environment: Mapping[str, str], path: Path) -> None:
        self._environment = environment
        self._file_name = path.name
        self._file = {setting.name.upper(): setting for setting in read_env_file(path)}
        self._asked: set[str] = set()

    def text(self, name: str, default: str, *, may_be_empty: bool = False) -> str:
        """Return the value of a variable; the default when it is not set, or empty and empty means nothing."""
        self._asked.add(name)
        value = default
        if name in self._environment:
            try:
                value = value_in(self._environment[name])
            except Unreadable as exc:
                raise Unreadable(f"{name} in the environment: {exc}") from None
        elif name in self._file:
            value = self._file[name].value
        return value if value or may_be_empty else default

    def parts(self, name: str, default: str, *, may_be_empty: bool = False) -> list[str]:
        """Return the parts of a list with commas, without empty ones."""
        parts = map(strip, self.text(name, default, may_be_empty=may_be_empty).split(","))
        return [part for part in parts if part]

    def is_in_environment(self, name: str) -> bool:
        """Return whether the environment has a variable, and so wins over `.env`."""
        return name in self._environment

    def of_others(self) -> dict[str, str]:
        """Return what `.env` holds for libraries, such as HTTPS_PROXY: all that `text` was not asked for so far.

        Refuses a name that looks like one that was asked for, so that no default takes the place of what was meant.
        The environment belongs to the whole system: there only what may be the token is looked at.
        """
        others = [setting for name, setting in self._file.items() if name not in self._asked]
        for setting in others:
            if meant := _closest(setting.name, self._asked):
                raise Unreadable(f"{self._file_name}, line {setting.line}: this name is unknown. Did you mean {meant}?")
        if _TOKEN not in self._environment and _TOKEN not in self._file:
            for name in self._environment.keys() - self._asked:
                if _closest(name, {_TOKEN}):
                    raise Unreadable(f"{name} in the environment is unknown. Did you mean {_TOKEN}?")
        return {setting.name: setting.value for setting in others}


def read_env_file(path: Path) -> list[Setting]:
    """Return the settings in a file, none when there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise Unreadable(f"{path.name} is a link to a file that does not exist.") from None
        twin = f"{path.name}.txt"  # an editor's idea of a file name
        if path.with_name(twin).exists():
            raise Unreadable(f"{twin} is not read: rename it to {path.name}.") from None
        return []
    except OSError as exc:
        raise Unreadable(f"{path.name} cannot be read: {exc.strerror}.") from None
    return list(_settings_in(content, path.name))


def value_in(text: str) -> str:
    """Return a value without blanks, quotes and a comment around it."""
    if _NO_TEXT.search(text):
        raise Unreadable("this is not UTF-8 text.")
    stripped = strip(text)
    quotes = next((row for row in (_DOUBLE, _SINGLE, _BACK) if stripped[:1] and stripped[0] in row), "")
    if not quotes:
        return strip(_COMMENT.sub("", text))
    quoted = re.fullmatch(rf"[{quotes}]((?:\\.|[^\\{quotes}])*)[{quotes}];?(.*)", stripped, re.DOTALL)
    if not quoted:
        raise Unreadable("a quote is not closed.")
    value, rest = quoted[1], strip(quoted[2])
    if rest and rest[0] not in "#\uff03":
        raise Unreadable("there is something after the closing quote.")
    return strip(_ESCAPED.sub(r"\1", value) if quotes == _DOUBLE else value)


def setting_in(line: str) -> tuple[str, str] | None:
    """Return the name and the value in a line without blanks around it; None when it is empty or a comment."""
    if "\0" in line:
        raise Unreadable("this is not UTF-8 text. Save the file as UTF-8.")
    if not line or line[0] in "#\uff03":
        return None
    if prefix := _PREFIX.match(line):
        line = line[prefix.end() :]
    if quoted := _WHOLLY_QUOTED.fullmatch(line):  # set "NAME=value"
        line = quoted[2]
    setting = _SETTING.fullmatch(line)
    if not setting:
        raise Unreadable("this is no setting. Write it like NAME=value, or put a # in front.")
    return setting[2], value_in(setting[3])


def strip(text: str) -> str:
    """Return a text without blanks around it, those that nobody sees included."""
    return _BLANKS.sub("", text)


def _settings_in(content: bytes, file_name: str) -> Iterator[Setting]:
    first: dict[str, Setting] = {}
    for number, line in enumerate(_LINE_END.split(_text_of(content, file_name)), start=1):
        try:
            found = setting_in(strip(line))
        except Unreadable as exc:
            raise Unreadable(f"{file_name}, line {number}: {exc}") from None
        if found is None:
            continue
        setting = Setting(number, *found)
        before = first.setdefault(setting.name.upper(), setting)
        if before.value != setting.value:
            raise Unreadable(f"{file_name}, line {number}: line {before.line} sets the same to another value.")
        yield setting


def _text_of(content: bytes, file_name: str) -> str:
    bom = next((bom for bom in _ENCODINGS if content.startswith(bom)), b"")
    encoding = _ENCODINGS.get(bom, "utf-8")
    try:
        # What is not UTF-8 hurts in a setting only, not in a comment.
        return content.removeprefix(bom).decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        raise Unreadable(f"{file_name} is damaged: it is not text. Save it as UTF-8.") from None


def _closest(name: str, known: set[str]) -> str:
    """Return the name in `known` that `name` looks like, "" if there is none."""
    plain = {_plain(other): other for other in sorted(known)}
    return next((plain[found] for found in get_close_matches(_plain(name), plain, n=1, cutoff=0.8)), "")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())
