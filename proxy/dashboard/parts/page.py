"""Answers for every page: HTML, one of its tables as CSV, or its tables as JSON."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.admin import site
from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from proxy.dashboard.parts.filters import Filters
from proxy.dashboard.parts.tables import Table
from proxy.dashboard.reports import today
from proxy.gemini.quota_day import next_reset
from proxy.models import database_now

View = Callable[..., HttpResponse]


def dashboard_page(view: View) -> View:
    """Restrict a page to staff and to GET and HEAD."""
    return require_safe(staff_member_required(wraps(view)(view)))


def answer(
    request: HttpRequest,
    name: str,
    title: str,
    *,
    filters: Filters,
    tables: Sequence[Table],
    moment: datetime | None = None,
    **context: Any,
) -> HttpResponse:
    """Answer with the template "proxy/{name}.html", or with the tables that `?format=` and `?table=` select.

    Templates refer to tables by name: {{ tables.models }}.
    """
    by_name = {table.name: table for table in tables}
    table = by_name.get(request.GET.get("table", ""), tables[0] if tables else None)
    if request.GET.get("format") == "csv" and table:
        disposition = f'attachment; filename="{name}-{table.name}.csv"'
        return HttpResponse(table.csv(), "text/csv; charset=utf-8", headers={"Content-Disposition": disposition})
    if request.GET.get("format") == "json":
        return JsonResponse({table.name: table.records() for table in tables})
    moment = moment or database_now()
    page = {
        **site.each_context(request),
        "title": title,
        "page": name,
        "pages": _pages(),
        "filters": filters,
        "tables": by_name,
        "moment": localtime(moment),
        "day": today(moment),
        "zone": settings.QUOTA_TIME_ZONE,
        "next_reset": next_reset(moment, settings.QUOTA_ZONE),
    }
    return render(request, f"proxy/{name}.html", {**page, **context})


def _pages() -> list[tuple[str, str]]:
    return [
        ("overview", _("Overview")),
        ("keys", _("Keys")),
        ("exhaustion", _("Exhaustion")),
        ("models", _("Models")),
        ("requests", _("Requests")),
        ("activity", _("Activity")),
        ("health", _("Health")),
    ]
