"""How pages word what the rows hold."""

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
    """Return a model's name as people read it; calls that name none have a word of their own."""
    return _("(no model)") if name == NO_MODEL else name


def range_name(name: str) -> str:
    """Return the name of a range as people read it."""
    words = {"24h": _("24 hours"), "7d": _("7 days"), "28d": _("28 days"), "90d": _("90 days")}
    return words.get(name, name)


def shown(value: Any, kind: str = "") -> str:
    """Return a value as a cell shows it: numbers with separators, durations with their unit, nothing as a dash."""
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
    """Return what stands in a cell. Not in the template, which takes three times as long for tables of many rows."""
    inside = cell.html or conditional_escape(shown(cell.value, kind))
    if cell.href and not cell.html:
        inside = format_html('<a href="{}">{}</a>', cell.href, inside)
    return format_html("{} <small>{}</small>", inside, cell.note) if cell.note else mark_safe(inside)  # noqa: S308  # escaped
