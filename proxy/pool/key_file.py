"""Lists of keys as people keep them: key.txt, or text pasted into the admin. Pure functions.

What has the shape of a key is a key, wherever it stands. The words around it decide only what people call it: a field
called "name", its label (`alice=`, `"alice":`), or another cell of its line. A line without a key is malformed, unless
it is part of the form: a comment, a heading of columns, brackets, another field of a key's record.
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

# What can travel in a header, and is no sentence.
POSSIBLE_SECRET = re.compile(r"[!-~]{8,300}")


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
    """Tell whether a line names columns, one of them a key's: only the first such line, and the same one again."""
    content = row.content
    if columns:
        return [cell.text for cell in row.cells] == [cell.text for cell in columns]
    return (
        (len(row.cells) > 1 or is_first)
        and any(heads_keys(cell.value) for cell in content)
        and not any(cell.secrets or cell.label or is_odd_key(cell.value) for cell in content)
    )


def _named(rows: list[Row], columns: Sequence[Cell]) -> Iterator[FoundKey]:
    """Yield the keys of a record. Several keys have the names that are bound to them by `:` or `=`."""
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
    others = [other for its in rows for other in its.cells if other is not cell]
    named = [as_name(other.value) for other in others if calls_it_a_name(other.label)]
    before, _secret, after = cell.text.partition(cell.secrets[0])
    label, ending = label_before(before), label_after(after)
    beside = [as_lone_name(other.value) for other in row.cells if other is not cell and not other.label]
    first = rows[0].cells[0]
    parents = [as_name(first.label)] if first.is_open else []
    its_own = [as_name(label.words) if label.is_marked else _one_word(label.words)]
    if not label.words:
        its_own.append(as_name(ending.words) if ending.is_marked else _one_word(ending.words))
    return next(filter(None, [*named, *its_own, *beside, *parents]), "")


def _one_word(words: str) -> str:
    """Return a name that only a blank parts from its key: one word; more are a sentence."""
    return as_lone_name(words) if len(words.split()) == 1 else ""
