"""Heat maps: tables of numbers, each cell in one of five colors."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple

from django.utils.dates import MONTHS_3, WEEKDAYS, WEEKDAYS_ABBR
from django.utils.formats import date_format, get_format
from django.utils.translation import gettext as _

WEEKS = 26
_STEPS = 4  # besides the color for 0


class Heading(NamedTuple):
    """The heading of a column or row."""

    # Read aloud by screen readers.
    full: str
    # Shown; "" where there is no room.
    short: str = ""


class HeatCell(NamedTuple):
    """A cell of a heat map."""

    title: str
    # None where there is no value, as for a future day.
    value: int | None
    # The number of its color, from 0 to 4.
    step: int


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A table of colored cells."""

    # Of the `Table` with the same numbers.
    name: str
    title: str
    # The heading of the column of headings.
    corner: str
    columns: Sequence[Heading]
    # Cells are in the order of the columns.
    rows: Sequence[tuple[Heading, Sequence[HeatCell]]]
    # The step of each color in use, and its values in words.
    legend: Sequence[tuple[int, str]]
    note: str = ""


def first_day(today: date) -> date:
    """Return the first day of the calendar that ends with the week of `today`."""
    return today - timedelta(days=(today.weekday() + 1 - _week_begins()) % 7 + 7 * (WEEKS - 1))


def calendar(name: str, title: str, answers: Mapping[date, int], today: date, note: str = "") -> HeatMap:
    """Return 26 weeks as columns. Future days are empty."""
    first = first_day(today)
    weeks = [first + timedelta(weeks=number) for number in range(WEEKS)]
    scale = scale_of(answers.values())
    rows = []
    for number in range(7):
        days = [week + timedelta(days=number) for week in weeks]
        cells = [_cell(_day(day), answers.get(day, 0) if day <= today else None, scale) for day in days]
        weekday = days[0].weekday()
        rows.append((Heading(str(WEEKDAYS[weekday]), str(WEEKDAYS_ABBR[weekday]) if number % 2 else ""), cells))
    columns = [Heading(_("week of %s") % _day(week), _month_begun_in(week)) for week in weeks]
    return HeatMap(name, title, _("Weekday"), columns, rows, _legend(scale), note)


def by_hour(
    name: str,
    title: str,
    answers: Mapping[tuple[date, int], int],
    days: Sequence[date],
    *,
    has_value: Callable[[date, int], bool],
    note: str = "",
) -> HeatMap:
    """Return days as columns and hours as rows. has_value: tells whether a day has that hour, and it has begun."""
    scale = scale_of(answers.values())
    names = [_day(day) for day in days]
    rows = []
    for hour in range(24):
        values = [answers.get((day, hour), 0) if has_value(day, hour) else None for day in days]
        cells = [_cell(f"{day}, {hour:02}:00", value, scale) for day, value in zip(names, values, strict=True)]
        rows.append((Heading(f"{hour:02}:00", f"{hour:02}" if hour % 3 == 0 else ""), cells))
    columns = [Heading(names[number], str(day.day) if number % 3 == 0 else "") for number, day in enumerate(days)]
    return HeatMap(name, title, _("Hour"), columns, rows, _legend(scale), note)


def scale_of(values: Iterable[int]) -> list[int]:
    """Return the highest value of each color; empty when all values are 0.

    Each color covers a quarter of the values, so that one outlier does not make all others look the same.
    """
    found = sorted(filter(None, values))
    return [found[max(len(found) * step // _STEPS - 1, 0)] for step in range(1, _STEPS + 1)] if found else []


def step_of(value: int, scale: Sequence[int]) -> int:
    """Return the number of a value's color: 0 for no answers, else from 1 to 4."""
    return bisect_left(scale, value) + 1 if value else 0


def _cell(title: str, value: int | None, scale: Sequence[int]) -> HeatCell:
    return HeatCell("", None, 0) if value is None else HeatCell(f"{title}: {value}", value, step_of(value, scale))


def _legend(scale: Sequence[int]) -> list[tuple[int, str]]:
    """Return each step in use with its lowest and highest value."""
    spans = [(step, low + 1, high) for step, (low, high) in enumerate(pairwise([0, *scale]), 1) if low < high]
    return [(0, "0"), *((step, str(low) if low == high else f"{low}–{high}") for step, low, high in spans)]


def _month_begun_in(week: date) -> str:
    end = week + timedelta(days=6)
    return str(MONTHS_3[end.month]).capitalize() if end.day <= 7 else ""


def _day(day: date) -> str:
    return date_format(day, "DATE_FORMAT")


def _week_begins() -> int:
    """Return the first day of the week in the current language: 0 for Sunday, 1 for Monday."""
    return int(get_format("FIRST_DAY_OF_WEEK"))
