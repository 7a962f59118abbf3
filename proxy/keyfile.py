"""Lists of keys as people keep them: key.txt, or text pasted into the admin. Pure functions.

What has the shape of a key is a key, wherever it stands. The words around it decide only what people call it: a field
called "name", its label (`alice=`, `"alice":`), or another cell of its line. A line without a key is malformed, unless
it is part of the form: a comment, a heading of columns, brackets, another field of a key's record.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.keynames import (
    as_lone_name,
    as_name,
    calls_it_a_name,
    is_generic,
    is_placeholder,
    label_after,
    label_before,
    split_label,
)
from proxy.masking import KEY_SHAPE

# What can travel in a header, and is no sentence.
POSSIBLE_SECRET = re.compile(r"[!-~]{8,300}")

# Nothing of a longer word; but "\nAIza…" and "key%3DAIza…" may come before it as they are written in strings and URLs.
_KEY = re.compile(
    rf"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-F][0-9A-F]))(?:{KEY_SHAPE.pattern})(?![\w-])", re.ASCII
)
_PART_OF_A_KEY = re.compile(r"AIza|(?<![A-Za-z0-9])AQ\.")
# Formats change: a word like these may be a key, though it has neither of Google's shapes.
_ODD_KEY = re.compile(r"[A-Za-z0-9._-]{20,300}")
# Numbers, dates and hashes; hosts and files; models and projects of Google.
_NO_KEY = re.compile(r"(?=.*\d)[0-9a-fA-F._-]+|[a-z0-9_.-]+\.[a-z]{2,6}|(?:gemini|gemma|gen-lang-client)-.*")

_COMMENT = re.compile(r"^\s*(?://|#|```\w*\s*$)|\s#(?!\d)|\s//\s")
_OBJECT = re.compile(r"\{[^{}]*\}")  # an innermost one
_QUOTED_OR_SEPARATOR = re.compile(r'"[^"]*"|[,;|\t]|[\[\]{}]+|[ ]{3,}')
_AS_TYPED = {
    **dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad\u202a\u202b\u202c\u202d\u202e"), None),
    **dict.fromkeys(map(ord, "\u00a0\u1680\u2007\u2009\u200a\u202f\u205f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02"), '"'),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\uff07"), "'"),
    **str.maketrans("\uff0c\u3001\uff1b\uff1a\uff1d\uff5c\u2010\u2011", ",,;:=|--"),  # full width, and typographic
}


class FoundKey(NamedTuple):
    """A key in a text. line: its number, from 1. name: "" if none. is_odd: it has neither of Google's shapes."""

    secret: str
    line: int
    name: str
    is_odd: bool


class KeyLines(NamedTuple):
    """What was found in a text. found: in order, repeated keys too. malformed: numbers of lines, from 1."""

    found: list[FoundKey]
    malformed: list[int]

    @property
    def secrets(self) -> list[str]:
        """The keys in order, each once."""
        return list(dict.fromkeys(key.secret for key in self.found))

    @property
    def names(self) -> dict[str, str]:
        """The name of each key that has one: the first it is called by."""
        return {key.secret: key.name for key in reversed(self.found) if key.name}

    @property
    def odd(self) -> list[int]:
        """The numbers of lines with keys that are taken although they have neither of Google's shapes."""
        return sorted({key.line for key in self.found if key.is_odd})

    @property
    def repeated(self) -> int:
        return len(self.found) - len(self.secrets)


def read_keys(text: str) -> KeyLines:
    """Return the keys in `text` with their names, and which lines should hold a key and do not.

    Takes time in proportion to the length of `text`, also where it is a single line.
    """
    lines = [_without_comment(line) for line in text.translate(_AS_TYPED).splitlines()]
    found: list[FoundKey] = []
    malformed: set[int] = set()
    columns: list[_Cell] = []
    for rows in _records("\n".join(lines)):
        if len(rows) == 1 and _is_heading(rows[0], is_first=not found):
            columns = rows[0].cells
            continue
        is_labelled = any(is_generic(cell.label) for row in rows for cell in row.cells)
        for row in rows:
            if not row.secrets:
                row.find_odd(is_labelled, columns)
            if row.is_malformed(is_labelled):
                malformed.add(row.number)
        found += _named(rows, columns)
    return KeyLines(found, sorted(malformed))


@dataclass(slots=True)
class _Cell:
    """A piece of a line between separators. label, mark, value: of its first key; of itself when it holds none."""

    text: str
    label: str = ""
    mark: str = ""
    value: str = ""
    secrets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.secrets = _KEY.findall(self.text)
        if self.secrets:
            self.label = label_before(_KEY.split(self.text, maxsplit=1)[0]).words
        else:
            self.label, self.mark, self.value = split_label(self.text)


@dataclass(slots=True)
class _Row:
    """What one line has of a record. is_odd: its key has neither of Google's shapes."""

    number: int
    cells: list[_Cell]
    is_odd: bool = False

    @property
    def secrets(self) -> list[str]:
        return [secret for cell in self.cells for secret in cell.secrets]

    @property
    def content(self) -> list[_Cell]:
        """The cells that hold more than signs."""
        return [cell for cell in self.cells if any(map(str.isalnum, cell.text))]

    def find_odd(self, is_labelled: bool, columns: Sequence[_Cell]) -> None:
        """Take words for keys that stand where a key should: alone, behind a label, in the column of keys."""
        content = self.content
        has_columns = len(columns) == len(self.cells) > 1
        for number, cell in enumerate(self.cells):
            if has_columns:
                is_expected = is_generic(columns[number].value)
            elif is_labelled:
                is_expected = is_generic(cell.label)
            else:
                is_expected = bool(cell.label) or len(content) == 1
            if is_expected and _is_odd_key(cell.value):
                cell.secrets, self.is_odd = [cell.value], True

    def is_malformed(self, is_labelled: bool) -> bool:
        """Tell whether a key should be here and is not, or is not whole."""
        if any(_PART_OF_A_KEY.search(_KEY.sub("", cell.text)) for cell in self.cells):
            return True
        if self.secrets:
            return False
        return not all(_belongs(cell, is_labelled) for cell in self.content)


def _belongs(cell: _Cell, is_labelled: bool) -> bool:
    """Tell whether a cell without a key is part of the form: `keys:`, or in a record with a key `"project": "p"`."""
    if not cell.label:
        return False
    if not cell.value:
        return cell.mark == ":"
    return is_labelled and not is_generic(cell.label)


def _is_odd_key(word: str) -> bool:
    return bool(_ODD_KEY.fullmatch(word)) and not (
        _NO_KEY.fullmatch(word) or _PART_OF_A_KEY.search(word) or is_placeholder(word)
    )


def _is_heading(row: _Row, is_first: bool) -> bool:
    """Tell whether a line names columns: one of them is a key's."""
    content = row.content
    return (
        (len(content) > 1 or is_first)
        and any(is_generic(cell.value) for cell in content)
        and not any(cell.secrets or cell.label or _is_odd_key(cell.value) for cell in content)
    )


def _named(rows: list[_Row], columns: Sequence[_Cell]) -> Iterator[FoundKey]:
    """Yield the keys of a record. Several keys have the names that are bound to them by `:` or `=`."""
    if sum(len(row.secrets) for row in rows) == 1:
        (row,) = (row for row in rows if row.secrets)
        yield FoundKey(row.secrets[0], row.number, _name_of_one(rows, row, columns), row.is_odd)
        return
    for row in rows:
        for cell in row.cells:
            texts = cell.text.split(cell.secrets[0]) if row.is_odd and cell.secrets else _KEY.split(cell.text)
            for number, secret in enumerate(cell.secrets):
                label, ending = label_before(texts[number]), label_after(texts[number + 1])
                bound = label if label.words else ending
                yield FoundKey(secret, row.number, as_name(bound.words) if bound.is_marked else "", row.is_odd)


def _name_of_one(rows: list[_Row], row: _Row, columns: Sequence[_Cell]) -> str:
    """Return the name of the only key of a record."""
    if len(rows) == 1 and len(columns) == len(row.cells) > 1:
        called = [cell for column, cell in zip(columns, row.cells, strict=True) if calls_it_a_name(column.value)]
        return as_name(called[0].value) if called and not called[0].secrets else ""
    (cell,) = (cell for cell in row.cells if cell.secrets)
    others = [other for its in rows for other in its.cells if other is not cell]
    named = [as_name(other.value) for other in others if calls_it_a_name(other.label)]
    before, _secret, after = cell.text.partition(cell.secrets[0])
    label, ending = label_before(before), label_after(after)
    beside = [as_lone_name(other.value) for other in row.cells if other is not cell and not other.label]
    parents = [as_name(other.label) for other in others if other.mark == ":" and not other.value]
    its_own = [as_name(label.words) if label.is_marked else _one_word(label.words)]
    if not label.words:
        its_own.append(as_name(ending.words) if ending.is_marked else _one_word(ending.words))
    return next(filter(None, [*named, *its_own, *beside, *parents]), "")


def _one_word(words: str) -> str:
    """Return a name that only a blank parts from its key: one word; more are a sentence."""
    return as_lone_name(words) if len(words.split()) == 1 else ""


def _without_comment(line: str) -> str:
    comment = _COMMENT.search(line)
    return line[: comment.start()] if comment else line


def _records(text: str) -> Iterator[list[_Row]]:
    """Yield what belongs together: an innermost object with the label before it, a YAML block, else a line."""
    number, position = 1, 0
    for found in _OBJECT.finditer(text):
        before = text[position : found.start()]
        label_at = max(map(before.rfind, "\n,[")) + 1
        yield from _blocks(before[:label_at], number)
        number += before.count("\n")
        if rows := _rows(before[label_at:] + found[0], number):
            yield rows
        number += found[0].count("\n")
        position = found.end()
    yield from _blocks(text[position:], number)


def _blocks(text: str, number: int) -> Iterator[list[_Row]]:
    """Yield the lines of `text`, from this number on; those indented below `- …` or `alice:` together with it."""
    block: list[str] = []
    has_more = False
    for line in text.split("\n"):
        if not (has_more and line[:1].isspace() and line.lstrip()[:1] not in ("", "-")):
            yield from filter(None, [_rows("\n".join(block), number)])
            number += len(block)
            block = []
            has_more = line.lstrip().startswith("- ") or line.rstrip().endswith(":")
        block.append(line)
    yield from filter(None, [_rows("\n".join(block), number)])


def _rows(text: str, number: int) -> list[_Row]:
    """Return the lines of `text` that are not blank, from this number on."""
    return [_Row(n, list(map(_Cell, _cells(line)))) for n, line in enumerate(text.split("\n"), number) if line.strip()]


def _cells(line: str) -> Iterator[str]:
    """Yield the pieces of a line between separators that do not stand in quotes, empty ones too."""
    start = 0
    for found in _QUOTED_OR_SEPARATOR.finditer(line):
        if found[0][0] != '"':
            yield line[start : found.start()]
            start = found.end()
    yield line[start:]
