"""Figures and tables. One definition gives a table's HTML, CSV and JSON."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

from django.utils.translation import gettext as _


class Column(NamedTuple):
    """A column of a table."""

    # In CSV and JSON.
    name: str
    label: str
    # "", "number", "percent", "ms", "second", "moment" or "words" (can wrap).
    kind: str = ""


def token_columns() -> list[Column]:
    """Return the columns of `Tokens`, in its order."""
    return [
        Column("prompt_tokens", _("Tokens in"), "number"),
        Column("output_tokens", _("out"), "number"),
        Column("thinking_tokens", _("thinking"), "number"),
        Column("cached_tokens", _("cached"), "number"),
    ]


class Cell(NamedTuple):
    """A value with a link, a note or HTML of its own."""

    value: Any
    href: str = ""
    # Small text behind the value.
    note: str = ""
    # Safe HTML, shown in place of the value.
    html: str = ""


class Figure(NamedTuple):
    """A number at the top of a page."""

    label: str
    value: object
    # As in `Column`.
    kind: str = ""
    # Small text below the number.
    note: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page."""

    # In the address of its CSV, and in JSON.
    name: str
    title: str
    columns: Sequence[Column]
    # Values in the order of the columns. The first one is the row's heading.
    rows: Sequence[Sequence[Any]]
    # Shown when there are no rows: why, and what to do.
    empty: str = ""
    note: str = ""
    # The column that it is sorted by, with a "-" in front for descending order; "" if it cannot be sorted.
    sort: str = ""
    # The columns that it can be sorted by.
    sorts: Sequence[str] = field(default_factory=tuple)

    @property
    def cells(self) -> list[list[tuple[Column, Cell]]]:
        """The rows, each value with its column."""
        return [
            [
                (column, value if isinstance(value, Cell) else Cell(value))
                for column, value in zip(self.columns, row, strict=True)
            ]
            for row in self.rows
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return the rows for JSON."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, map(_plain, row), strict=True)) for row in self.rows]

    def csv(self) -> str:
        """Return the rows as CSV. No spreadsheet takes a cell for a formula."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([_harmless(column.name) for column in self.columns])
        writer.writerows([_harmless(_plain(value)) for value in row] for row in self.rows)
        return text.getvalue()


def _plain(value: Any) -> Any:
    value = value.value if isinstance(value, Cell) else value
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if value is None or isinstance(value, int | float | str) else str(value)


_FORMULA = re.compile(r"""[\t\r\n]|[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20]""")  # also as full-width characters


def _harmless(value: Any) -> Any:
    """Put an apostrophe in front of a text that looks like a formula. Spreadsheets skip leading blanks and quotes."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
