"""Figures, and tables: what a page shows as HTML, and hands out as CSV and JSON, from one definition."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

from django.utils.translation import gettext as _


class Column(NamedTuple):
    """name: in CSV and JSON. kind: "", "number", "percent", "ms", "moment" or "words" (may wrap)."""

    name: str
    label: str
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
    """A value that is shown with more than itself: an address, a second word below, a picture (safe HTML)."""

    value: Any
    href: str = ""
    note: str = ""
    html: str = ""


class Figure(NamedTuple):
    """A number at the top of the page. kind: as in a table; note: below it."""

    label: str
    value: object
    kind: str = ""
    note: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """name: in the address of its CSV. rows: values in the order of the columns, the first one is the row's heading.

    empty: what to say, and to do, when there are no rows. sort: column by which it is sorted, with "-" for descending;
    "": it cannot be sorted.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    empty: str = ""
    note: str = ""
    sort: str = ""
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
        """Return the rows as CSV, whose cells no spreadsheet takes for a formula."""
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
    """Return a text that begins like a formula with an apostrophe before it; spreadsheets skip blanks and quotes."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
