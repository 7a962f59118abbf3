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
    """The link of a heading that sorts the table."""

    address: str
    # How the table is sorted by this column now: "ascending", "descending" or "".
    order: str
    arrow: str


@register.simple_tag(takes_context=True)
def sort_link(context: RequestContext, table: Table, column: Column) -> SortLink:
    """Return a heading's link: sort by its column, or reverse the order if it is sorted by it already."""
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
    """Return the address of a table as "csv" or "json", with all filters of this page."""
    query = context["request"].GET.copy()
    query["format"], query["table"] = form, table.name
    return f"?{query.urlencode()}"
