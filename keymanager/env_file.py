"""Reads settings from the environment and from `.env`, in the many ways people write it.

In both, blanks, quotes and a trailing comment are removed from values. Error messages never contain a value, or a name
that is not ours.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

# Also zero-width characters and byte order marks, which editors and web pages leave behind.
_BLANK = r"[\s\u200b-\u200f\u2060\ufeff]"
_BLANKS = re.compile(rf"\A{_BLANK}+|{_BLANK}+\Z")
_PREFIX = re.compile(rf"(?:(?:export|set|env|-){_BLANK}+|\$env:)", re.IGNORECASE)
_SETTING = re.compile(rf"(['\"]?)([A-Za-z_][\w.-]*)\1{_BLANK}*(?:[=\uff1d]|[:\uff1a](?!//))(.*)", re.ASCII)
_WHOLLY_QUOTED = re.compile(r"(['\"])([A-Za-z_][\w.-]*=.*)\1")
_COMMENT = re.compile(rf"(?:\A[#\uff03](?={_BLANK}|\Z)|{_BLANK}[#\uff03]).*", re.DOTALL)
_LINE_END = re.compile(r"\r\n|\r|\n")
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")  # surrogates represent bytes that are not UTF-8
_ESCAPED = re.compile(r"\\([\"\\$`])")
# Quotes, and what word processors turn them into.
_DOUBLE, _SINGLE, _BACK = '"\u201c\u201d\u201e\u201f', "'\u2018\u2019\u201a\u201b", "`"
_ENCODINGS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_TOKEN = "PLACEHOLDER_TOKEN"  # noqa: S105  # the name of the setting


class Unreadable(ImproperlyConfigured):
    """A file, a line or a value cannot be read. The message says which one, and what to do."""


class Setting(NamedTuple):
    """A setting in `.env`."""

    # From 1.
    line: int
    # As written.
    name: str
    # Without quotes and comment.
    value: str


class Choices:
    """The values of settings: from the environment first, then from `.env`. All methods raise Unreadable."""

    def __init__(self, environment: Mapping[str, str], path: Path) -> None:
        self._environment = environment
        self._file_name = path.name
        self._file = {setting.name.upper(): setting for setting in read_env_file(path)}
        self._asked: set[str] = set()

    def text(self, name: str, default: str, *, may_be_empty: bool = False) -> str:
        """Return the value of a variable, or the default if it is not set (or empty, unless `may_be_empty`)."""
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
        """Return the non-empty parts of a comma-separated list."""
        parts = map(strip, self.text(name, default, may_be_empty=may_be_empty).split(","))
        return [part for part in parts if part]

    def is_in_environment(self, name: str) -> bool:
        """Tell whether a variable is set in the environment, which takes precedence over `.env`."""
        return name in self._environment

    def of_others(self) -> dict[str, str]:
        """Return the variables in `.env` that `text` was never called for: those of libraries, such as HTTPS_PROXY.

        A name similar to one of ours is refused, so that a typo never leads to a default. In the environment, which
        belongs to the whole system, only names similar to that of the token are refused.
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
    """Return the settings in a file; none if it does not exist."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise Unreadable(f"{path.name} is a link to a file that does not exist.") from None
        twin = f"{path.name}.txt"  # some editors add this ending
        if path.with_name(twin).exists():
            raise Unreadable(f"{twin} is ignored. Rename it to {path.name}.") from None
        return []
    except OSError as exc:
        raise Unreadable(f"{path.name} cannot be read: {exc.strerror}.") from None
    return list(_settings_in(content, path.name))


def value_in(text: str) -> str:
    """Return a value without surrounding blanks and quotes, and without a comment."""
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
    """Return the name and value in a line without surrounding blanks; None if it is empty or a comment."""
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
        raise Unreadable("this is not a setting. Write NAME=value, or put a # in front.")
    return setting[2], value_in(setting[3])


def strip(text: str) -> str:
    """Return a text without surrounding blanks, including invisible ones."""
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
            raise Unreadable(f"{file_name}, line {number}: line {before.line} sets this to a different value.")
        yield setting


def _text_of(content: bytes, file_name: str) -> str:
    bom = next((bom for bom in _ENCODINGS if content.startswith(bom)), b"")
    encoding = _ENCODINGS.get(bom, "utf-8")
    try:
        # Bytes that are not UTF-8 are harmless in a comment.
        return content.removeprefix(bom).decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        raise Unreadable(f"{file_name} is not text. Save it as UTF-8.") from None


def _closest(name: str, known: set[str]) -> str:
    """Return the name in `known` that is similar to `name`, "" if there is none."""
    plain = {_plain(other): other for other in sorted(known)}
    return next((plain[found] for found in get_close_matches(_plain(name), plain, n=1, cutoff=0.8)), "")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())
