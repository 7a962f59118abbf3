"""Filters and tags of the dashboard's templates."""

from typing import NamedTuple

from django import template
from django.template.context import RequestContext

from proxy.dashboard.parts import formats
from proxy.dashboard.parts.tables import Column, Table

register = template.Library()
for _filter in (formats.model_name, formats.range_name, formats.shown, formats.content):
    register.filter(_filter.__name__, _filter)


class SortLink(NamedTuple):
    """Where a heading leads, and how the table is sorted by its column now: "ascending", "descending" or ""."""

    address: str
    order: str
    arrow: str


@register.simple_tag(takes_context=True)
def sort_link(context: RequestContext, table: Table, column: Column) -> SortLink:
    """Return the link of a heading: sorted by its column, or the other way round if it is already."""
    query = context["request"].GET.copy()
    query["sort"] = f"-{column.name}" if table.sort == column.name else column.name
    query.pop("after", None)
    query.pop("page", None)
    address = f"?{query.urlencode()}"
    if table.sort.removeprefix("-") != column.name:
        return SortLink(address, "", "")
    is_down = table.sort.startswith("-")
    return SortLink(address, "descending" if is_down else "ascending", " ▼" if is_down else " ▲")


@register.simple_tag(takes_context=True)
def export_link(context: RequestContext, table: Table, form: str) -> str:
    """Return where a table is handed out as "csv" or "json": this very page, with all that narrows it."""
    query = context["request"].GET.copy()
    query["format"], query["table"] = form, table.name
    return f"?{query.urlencode()}"
