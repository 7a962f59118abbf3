"""Splits a list of keys into records (objects, blocks, lines), their rows and cells, and finds the keys in them.

Pure functions.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from proxy.pool.key_names import calls_it_a_name, is_generic, is_placeholder, label_before, split_label
from proxy.security.masking import KEY_SHAPE

# Not part of a longer word, apart from "\nAIza…" and "key%3DAIza…", as in strings and URLs.
KEY = re.compile(rf"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-F][0-9A-F]))(?:{KEY_SHAPE.pattern})(?![\w-])", re.ASCII)
_PART_OF_A_KEY = re.compile(r"AIza|(?<![A-Za-z0-9])AQ\.")
# Formats change: such a word may be a key although it has neither of Google's two formats.
_ODD_KEY = re.compile(r"[A-Za-z0-9._-]{20,300}")
# Numbers, dates and hashes; host and file names; Google's models and projects.
_NO_KEY = re.compile(r"(?=.*\d)[0-9a-fA-F._-]+|[a-z0-9_.-]+\.[a-z]{2,6}|(?:gemini|gemma|gen-lang-client)-.*")

_COMMENT = re.compile(r"^\s*(?://|#|```\w*\s*$)|\s#(?!\d)|\s//\s")
_OPENING = re.compile(r"=\s*(?:\(\s*$|(?=[\[{\"']\s*$))")  # `keys = [` goes on as `keys: [` does
_BRACE = re.compile(r"[{}]")
_DEEPEST = 100
_QUOTED_OR_SEPARATOR = re.compile(r'"[^"]*"|[,;|\t]|[\[\]{}]+|[ ]{3,}')
_AS_TYPED = {
    **dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad\u202a\u202b\u202c\u202d\u202e"), None),
    **dict.fromkeys(map(ord, "\u00a0\u1680\u2007\u2009\u200a\u202f\u205f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02"), '"'),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\uff07"), "'"),
    **str.maketrans("\uff0c\u3001\uff1b\uff1a\uff1d\uff5c\u2010\u2011", ",,;:=|--"),  # full width, and typographic
}


@dataclass(slots=True)
class Cell:
    """A piece of a line between separators."""

    text: str
    # The label in front of its first key; without a key, the parts of the cell: label, mark, value.
    label: str = ""
    mark: str = ""
    value: str = ""
    secrets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.secrets = KEY.findall(self.text)
        if self.secrets:
            self.label = label_before(KEY.split(self.text, maxsplit=1)[0]).words
        else:
            self.label, self.mark, self.value = split_label(self.text)

    @property
    def is_open(self) -> bool:
        """Whether it is a label for what follows: `keys:`."""
        return self.mark == ":" and not self.value


@dataclass(slots=True)
class Row:
    """A line of a record."""

    number: int
    cells: list[Cell]
    # Its key has neither of Google's two formats.
    is_odd: bool = False

    @property
    def secrets(self) -> list[str]:
        return [secret for cell in self.cells for secret in cell.secrets]

    @property
    def content(self) -> list[Cell]:
        """The cells that hold more than signs."""
        return [cell for cell in self.cells if any(map(str.isalnum, cell.text))]

    def find_odd(self, is_labelled: bool, columns: Sequence[Cell]) -> None:
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
            if is_expected and is_odd_key(cell.value):
                cell.secrets, self.is_odd = [cell.value], True

    def is_malformed(self, is_labelled: bool) -> bool:
        """Tell whether a key should be here and is missing or incomplete."""
        if any(_PART_OF_A_KEY.search(KEY.sub("", cell.text)) for cell in self.cells):
            return True
        if self.secrets:
            return False
        return not all(_belongs(cell, is_labelled) for cell in self.content)


def _belongs(cell: Cell, is_labelled: bool) -> bool:
    """Tell whether a cell without a key belongs to the format: `keys:`, or `"project": "p"` in a record with a key."""
    return cell.is_open or (bool(cell.label and cell.value) and is_labelled and not is_generic(cell.label))


def is_odd_key(word: str) -> bool:
    """Tell whether `word` may be a key in an unknown format."""
    return bool(_ODD_KEY.fullmatch(word)) and not (
        _NO_KEY.fullmatch(word) or _PART_OF_A_KEY.search(word) or is_placeholder(word)
    )


def records(text: str) -> Iterator[list[Row]]:
    """Yield the records of `text`, each with its non-blank lines.

    A record is an object (without nested ones, but with its label), a YAML block, or a single line.
    """
    lines = map(_without_comment, text.translate(_AS_TYPED).splitlines())
    text = "\n".join(_OPENING.sub(":", line) for line in lines)
    number, position = 1, 0
    open_objects: list[list[Row]] = []
    for brace in _BRACE.finditer(text):
        piece = text[position : brace.start()]
        position = brace.end()
        begins = brace[0] == "{" and len(open_objects) < _DEEPEST
        label_at = max(map(piece.rfind, "\n,[")) + 1 if begins else len(piece)
        if open_objects:
            open_objects[-1] += _rows(piece[:label_at], number)
        else:
            yield from _blocks(piece[:label_at], number)
        number += piece.count("\n")
        if begins:
            open_objects.append(_rows(piece[label_at:], number))
        elif open_objects:
            yield _labelled(open_objects.pop())
    for rows in open_objects:  # unclosed
        yield from ([row] for row in rows)
    yield from _blocks(text[position:], number)


def _labelled(rows: list[Row]) -> list[Row]:
    """Give the elements of lists the label of their list, and return `rows`."""
    label = ""
    for row in rows:
        for cell in row.cells:
            if cell.label:
                label = cell.label if cell.is_open else ""
            elif not cell.secrets:
                cell.label = label
    return rows


def _without_comment(line: str) -> str:
    comment = _COMMENT.search(line)
    return line[: comment.start()] if comment else line


def _blocks(text: str, number: int) -> Iterator[list[Row]]:
    """Yield the blocks of `text`, whose first line has this number.

    Lines belong to a block when they are indented below `- …` or `alice:`, or have a label after `Name: alice`.
    """
    block: list[str] = []
    may_indent = is_named = has_key = False
    for line in text.split("\n"):
        label, _mark, _value = split_label(line)
        is_key = bool(KEY.search(line))
        is_name = not is_key and calls_it_a_name(label)
        is_below = may_indent and line[:1].isspace() and line.lstrip()[:1] not in ("", "-")
        is_other = is_name or (is_key and (has_key or not is_generic(label)))
        is_after_name = is_named and bool(label) and not is_other
        if not is_below and not is_after_name:
            yield _labelled(_rows("\n".join(block), number))
            number += len(block)
            block = []
            may_indent = line.lstrip().startswith("- ") or line.rstrip().endswith(":")
            is_named, has_key = is_name and not may_indent, False
        block.append(line)
        has_key |= is_key
    yield _labelled(_rows("\n".join(block), number))


def _rows(text: str, number: int) -> list[Row]:
    """Return the non-blank lines of `text`, whose first line has this number."""
    lines = enumerate(text.split("\n"), number)
    return [Row(n, list(map(Cell, _cells(line.strip(" "))))) for n, line in lines if line.strip()]


def _cells(line: str) -> Iterator[str]:
    """Yield the pieces of a line between unquoted separators, including empty ones."""
    start = 0
    for found in _QUOTED_OR_SEPARATOR.finditer(line):
        if found[0][0] != '"':
            yield line[start : found.start()]
            start = found.end()
    yield line[start:]
