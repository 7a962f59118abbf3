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
_STEPS = 4  # and one for nothing


class Heading(NamedTuple):
    """Of a column or row. full: for those who hear it; short: what there is room for, maybe nothing."""

    full: str
    short: str = ""


class Warmth(NamedTuple):
    """A cell. value: None where there is nothing to be known; step: from 0 to 4."""

    title: str
    value: int | None
    step: int


@dataclass(frozen=True, slots=True)
class HeatMap:
    """rows: each with its heading and its cells, in the order of the columns. name: of the `Table` with the same."""

    name: str
    title: str
    corner: str
    columns: Sequence[Heading]
    rows: Sequence[tuple[Heading, Sequence[Warmth]]]
    legend: Sequence[tuple[int, str]]
    note: str = ""


def first_day(today: date) -> date:
    """Return the first day of the calendar that ends with the week of `today`."""
    return today - timedelta(days=(today.weekday() + 1 - _week_begins()) % 7 + 7 * (WEEKS - 1))


def calendar(name: str, title: str, answers: Mapping[date, int], today: date, note: str = "") -> HeatMap:
    """Return 26 weeks as columns; days that are still to come are left empty."""
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
    is_there: Callable[[date, int], bool],
    note: str = "",
) -> HeatMap:
    """Return days as columns and their hours as rows. is_there: tells whether a day has that hour, and had it yet."""
    scale = scale_of(answers.values())
    names = [_day(day) for day in days]
    rows = []
    for hour in range(24):
        values = [answers.get((day, hour), 0) if is_there(day, hour) else None for day in days]
        cells = [_cell(f"{day}, {hour:02}:00", value, scale) for day, value in zip(names, values, strict=True)]
        rows.append((Heading(f"{hour:02}:00", f"{hour:02}" if hour % 3 == 0 else ""), cells))
    columns = [Heading(names[number], str(day.day) if number % 3 == 0 else "") for number, day in enumerate(days)]
    return HeatMap(name, title, _("Hour"), columns, rows, _legend(scale), note)


def scale_of(values: Iterable[int]) -> list[int]:
    """Return the highest value of each color; empty when there is none but 0.

    Each color has a quarter of the values, so that one outlier does not make all others look the same.
    """
    found = sorted(filter(None, values))
    return [found[max(len(found) * step // _STEPS - 1, 0)] for step in range(1, _STEPS + 1)] if found else []


def step_of(value: int, scale: Sequence[int]) -> int:
    """Return 0 for nothing, else the number of the color of a value, from 1 to 4."""
    return bisect_left(scale, value) + 1 if value else 0


def _cell(what: str, value: int | None, scale: Sequence[int]) -> Warmth:
    return Warmth("", None, 0) if value is None else Warmth(f"{what}: {value}", value, step_of(value, scale))


def _legend(scale: Sequence[int]) -> list[tuple[int, str]]:
    """Return what each step that occurs stands for: its lowest and its highest value."""
    spans = [(step, low + 1, high) for step, (low, high) in enumerate(pairwise([0, *scale]), 1) if low < high]
    return [(0, "0"), *((step, str(low) if low == high else f"{low}–{high}") for step, low, high in spans)]


def _month_begun_in(week: date) -> str:
    end = week + timedelta(days=6)
    return str(MONTHS_3[end.month]).capitalize() if end.day <= 7 else ""


def _day(day: date) -> str:
    return date_format(day, "DATE_FORMAT")


def _week_begins() -> int:
    """Return the day a week begins with, where people speak this language: 0 for Sunday, 1 for Monday."""
    return int(get_format("FIRST_DAY_OF_WEEK"))
