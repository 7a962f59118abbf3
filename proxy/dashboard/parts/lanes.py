"""Lanes: the exhaustion events of a quota day, drawn as plain SVG. The width, in percent, is the day."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, tzinfo
from itertools import groupby
from typing import NamedTuple

from django.utils.formats import date_format
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from proxy.dashboard.parts.formats import model_name
from proxy.dashboard.reports.exhaustion import QuotaDay
from proxy.gemini.refusals import Window
from proxy.models import ExhaustionEvent
from proxy.models.exhaustion import WINDOWS

# For each window a letter, and the top and height of its bar in the row. No two windows look the same.
_SHAPES = {
    Window.DAY: ("D", 1, 14),
    Window.MINUTE: ("M", 9, 6),
    Window.TOKENS: ("T", 1, 6),
    Window.NONE: ("N", 1, 14),
    Window.CREDITS: ("C", 1, 14),
    Window.UNKNOWN: ("?", 5, 6),
}
_ROW = 18
_LEAST_WIDTH = 0.4  # percent; a minute would be invisible
_RIGHT = 60  # percent; beyond this, the text goes to the left of its bar
_WIDE = 2  # percent; room for a letter, and ten times this for text
_MOST_WORDS = 3


class Mark(NamedTuple):
    """A bar and its text."""

    window: str
    # In percent, as SVG takes it.
    x: str
    width: str
    # In pixels.
    y: int
    height: int
    text: str
    text_x: str
    anchor: str
    text_y: int
    # Describes the bar.
    words: str


class Lane(NamedTuple):
    """A project's day, with a row for each model."""

    name: str
    href: str
    # In pixels.
    height: int
    marks: Sequence[Mark]
    # Describes the first marks.
    label: str


class Hour(NamedTuple):
    """A line across the lanes."""

    # Of the hour; "" where there is no room.
    name: str
    x: str
    anchor: str


class Shape(NamedTuple):
    """The look of a bar, and its meaning."""

    window: str
    letter: str
    y: int
    height: int
    words: str


def project_name(event: ExhaustionEvent) -> str:
    """Return the project's name. A project without a name has one key, whose label is returned instead."""
    return event.project.name or event.key.label


def lanes(events: Iterable[ExhaustionEvent], day: QuotaDay, address: str) -> list[Lane]:
    """Return a lane for each project, in the order of `events`, which are grouped by project.

    address: of a project's page, without its id at the end.
    """
    return [
        _lane(list(group), day, f"{address}{project_id}")
        for project_id, group in groupby(events, key=lambda event: event.project_id)
    ]


def hours(day: QuotaDay, zone: tzinfo) -> list[Hour]:
    """Return every third hour of the day, as clocks show them, also when the clocks change."""
    lines = []
    for hour in range(0, 25, 3):
        moment = datetime.combine(day.day, time(hour), zone).astimezone(UTC) if hour < 24 else day.end
        anchor = {0: "start", 24: "end"}.get(hour, "middle")
        lines.append(Hour(f"{hour}:00" if hour % 6 == 0 else "", percent(day.share(moment)), anchor))
    return lines


def grid(lines: Iterable[Hour], now: str) -> SafeString:
    """Return the vertical lines of every lane. now: the place of the current time, "" on another day."""
    line = '<line class="{0}" x1="{1}" x2="{1}" y1="0" y2="100%"/>'
    return format_html_join("", line, [*(("", hour.x) for hour in lines), *([("now", now)] if now else [])])


def legend() -> list[Shape]:
    """Return the meaning of each bar."""
    words = dict(WINDOWS)
    return [Shape(window, letter, y, height, str(words[window])) for window, (letter, y, height) in _SHAPES.items()]


def percent(share: float) -> str:
    """Return a share in percent, as SVG takes it."""
    return f"{share * 100:.3f}%"


def _model(event: ExhaustionEvent) -> str:
    return model_name(event.model_name) or _("all models")


def _words(event: ExhaustionEvent, day: QuotaDay) -> str:
    return _("%(model)s: %(why)s, from %(since)s until %(until)s") % {
        "model": _model(event),
        "why": event.get_window_display(),
        "since": _clock(event.since, day),
        "until": _clock(event.until, day) if event.until else _("revived manually"),
    }


def _clock(moment: datetime, day: QuotaDay) -> str:
    """Return the time of day, with the date if it is on another day."""
    if moment == day.end:
        return _("the reset")
    return date_format(localtime(moment), "H:i" if day.start <= moment < day.end else "Y-m-d H:i")


def _lane(events: list[ExhaustionEvent], day: QuotaDay, href: str) -> Lane:
    rows = {name: number for number, name in enumerate(dict.fromkeys(event.model_name for event in events))}
    named: set[str] = set()
    marks = []
    for event in events:
        is_first = event.model_name not in named
        named.add(event.model_name)
        marks.append(_mark(event, day, rows[event.model_name] * _ROW, is_named=is_first))
    words = [mark.words for mark in marks[:_MOST_WORDS]]
    if len(marks) > _MOST_WORDS:
        words.append(_("and %s more") % (len(marks) - _MOST_WORDS))
    return Lane(project_name(events[0]), href, len(rows) * _ROW, marks, "; ".join(words))


def _mark(event: ExhaustionEvent, day: QuotaDay, top: int, *, is_named: bool) -> Mark:
    letter, y, height = _SHAPES[Window(event.window)]
    begin, end = (day.share(moment) * 100 for moment in (event.since, event.until or day.end))
    width = max(end - begin, _LEAST_WIDTH)
    x = min(begin, 100 - width)
    text = f"{letter} {_model(event)}" if is_named else letter if width > _WIDE else ""
    # Inside a wide bar, otherwise to its right, or to its left where there is no room.
    is_before = is_named and x > _RIGHT
    text_x = x - 0.6 if is_before else x + 0.6 if width > _WIDE * 10 or not is_named else x + width + 0.6
    return Mark(
        event.window,
        percent(x / 100),
        percent(width / 100),
        top + y,
        height,
        text,
        percent(text_x / 100),
        "end" if is_before else "start",
        top + 12,
        _words(event, day),
    )
