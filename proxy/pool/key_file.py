"""Reads lists of keys in people's own formats: key.txt, or text pasted into the admin. Pure functions.

Whatever looks like a key is a key, wherever it is. The text around it only gives its name: a field called "name", a
label (`alice=`, `"alice":`), or another cell of the line. A line without a key is malformed, unless it belongs to the
format: a comment, column headings, brackets, another field of a key's record.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from proxy.pool.key_names import (
    as_lone_name,
    as_name,
    calls_it_a_name,
    heads_keys,
    is_generic,
    label_after,
    label_before,
)
from proxy.pool.key_records import KEY, Cell, Row, is_odd_key, records

# Can be sent in a header, and is not a sentence.
POSSIBLE_SECRET = re.compile(r"[!-~]{8,300}")


class FoundKey(NamedTuple):
    """A key in a text."""

    secret: str
    # From 1.
    line: int
    # "" if it has none.
    name: str
    # It has neither of Google's two formats.
    is_odd: bool


class KeyLines(NamedTuple):
    """The keys in a text."""

    # In order, including repeated keys.
    found: list[FoundKey]
    # Line numbers, from 1.
    malformed: list[int]

    @property
    def secrets(self) -> list[str]:
        """The keys in order, each once."""
        return list(dict.fromkeys(key.secret for key in self.found))

    @property
    def names(self) -> dict[str, str]:
        """The first name of each key that has one."""
        return {key.secret: key.name for key in reversed(self.found) if key.name}

    @property
    def odd(self) -> list[int]:
        """The numbers of the lines with keys in neither of Google's two formats."""
        return sorted({key.line for key in self.found if key.is_odd})

    @property
    def repeated(self) -> int:
        return len(self.found) - len(self.secrets)


def read_keys(text: str) -> KeyLines:
    """Return the keys in `text` with their names, and the lines that should contain a key and do not.

    The time is proportional to the length of `text`, even if it is a single line.
    """
    found: list[FoundKey] = []
    malformed: set[int] = set()
    columns: list[Cell] = []
    for rows in records(text):
        if len(rows) == 1 and _is_heading(rows[0], columns, is_first=not found):
            columns = rows[0].cells if len(rows[0].content) > 1 else columns
            continue
        is_labelled = any(is_generic(cell.label) for row in rows for cell in row.cells)
        for row in rows:
            if not row.secrets:
                row.find_odd(is_labelled, columns)
            if row.is_malformed(is_labelled):
                malformed.add(row.number)
        found += _named(rows, columns)
    return KeyLines(sorted(found, key=lambda key: key.line), sorted(malformed))


def _is_heading(row: Row, columns: Sequence[Cell], is_first: bool) -> bool:
    """Tell whether a line has column headings, one of them for keys. Only the first such line counts, or its copy."""
    content = row.content
    if columns:
        return [cell.text for cell in row.cells] == [cell.text for cell in columns]
    return (
        (len(row.cells) > 1 or is_first)
        and any(heads_keys(cell.value) for cell in content)
        and not any(cell.secrets or cell.label or is_odd_key(cell.value) for cell in content)
    )


def _named(rows: list[Row], columns: Sequence[Cell]) -> Iterator[FoundKey]:
    """Yield the keys of a record. If there are several, only labels with `:` or `=` are names."""
    if sum(len(row.secrets) for row in rows) == 1:
        (row,) = (row for row in rows if row.secrets)
        yield FoundKey(row.secrets[0], row.number, _name_of_one(rows, row, columns), row.is_odd)
        return
    for row in rows:
        for cell in row.cells:
            texts = cell.text.split(cell.secrets[0]) if row.is_odd and cell.secrets else KEY.split(cell.text)
            for number, secret in enumerate(cell.secrets):
                label, ending = label_before(texts[number]), label_after(texts[number + 1])
                bound = label if label.words else ending
                yield FoundKey(secret, row.number, as_name(bound.words) if bound.is_marked else "", row.is_odd)


def _name_of_one(rows: list[Row], row: Row, columns: Sequence[Cell]) -> str:
    """Return the name of the only key of a record."""
    if len(rows) == 1 and len(columns) == len(row.cells) > 1:
        called = [cell for column, cell in zip(columns, row.cells, strict=True) if calls_it_a_name(column.value)]
        return as_name(called[0].value) if called and not called[0].secrets else ""
    (cell,) = (cell for cell in row.cells if cell.secrets)
    others = [other for line in rows for other in line.cells if other is not cell]
    named = [as_name(other.value) for other in others if calls_it_a_name(other.label)]
    before, _secret, after = cell.text.partition(cell.secrets[0])
    label, ending = label_before(before), label_after(after)
    beside = [as_lone_name(other.value) for other in row.cells if other is not cell and not other.label]
    first = rows[0].cells[0]
    parents = [as_name(first.label)] if first.is_open else []
    labels = [as_name(label.words) if label.is_marked else _one_word(label.words)]
    if not label.words:
        labels.append(as_name(ending.words) if ending.is_marked else _one_word(ending.words))
    return next(filter(None, [*named, *labels, *beside, *parents]), "")


def _one_word(words: str) -> str:
    """Return a name that is separated from its key only by a blank: a single word, since more would be a sentence."""
    return as_lone_name(words) if len(words.split()) == 1 else ""
