"""Formats values for pages."""

from datetime import datetime
from typing import Any

from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils.formats import date_format, number_format
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from proxy.dashboard.parts.tables import Cell
from proxy.models import NO_MODEL


def model_name(name: str) -> str:
    """Return a model's name for people; "(no model)" for calls that name none."""
    return _("(no model)") if name == NO_MODEL else name


def range_name(name: str) -> str:
    """Return the name of a range for people."""
    words = {"24h": _("24 hours"), "7d": _("7 days"), "28d": _("28 days"), "90d": _("90 days")}
    return words.get(name, name)


def shown(value: Any, kind: str = "") -> str:
    """Return a value as text: numbers with separators, durations with a unit, a dash for no value."""
    if value is None or value == "":
        return "–"
    if kind == "ms":
        return f"{number_format(value / 1000, 1)} s" if value >= 10_000 else f"{intcomma(value)} ms"
    if kind == "percent":
        return f"{number_format(value, 1)} %"
    if kind == "second" and isinstance(value, datetime):
        return date_format(localtime(value), "M j, H:i:s")
    if isinstance(value, datetime):
        return date_format(localtime(value), "Y-m-d H:i")
    return str(intcomma(value)) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def content(cell: Cell, kind: str) -> SafeString:
    """Return the HTML of a cell. A template would take three times as long for large tables."""
    inside = cell.html or conditional_escape(shown(cell.value, kind))
    if cell.href and not cell.html:
        inside = format_html('<a href="{}">{}</a>', cell.href, inside)
    return format_html("{} <small>{}</small>", inside, cell.note) if cell.note else mark_safe(inside)  # noqa: S308  # escaped
