"""How many requests are left today, and whether they last until the reset."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Case, Count, F, IntegerField, Q, Sum, Value, When
from django.db.models.functions import Coalesce, Greatest

from proxy.dashboard.reports.period import Period
from proxy.dashboard.reports.pool import quotas_of, today
from proxy.gemini.quota_day import day_start, next_reset
from proxy.models import Project
from proxy.models.quotas import limit_in_force

_MOST_AT_ONCE = 20


class Remaining(NamedTuple):
    """Requests left today for a model, over all usable projects."""

    model_name: str
    # Of the projects with a known limit.
    left: int
    limit: int
    used: int
    # How many projects have a known limit, of how many.
    known: int
    all: int
    # Requests today, of all projects.
    requests: int


class RunsOut(NamedTuple):
    """A project whose daily quota is used up before the reset at today's rate."""

    project: Project
    model_name: str
    used: int
    limit: int
    moment: datetime


def remaining(moment: datetime, period: Period) -> list[Remaining]:
    """Return what is left today for each model, the busiest first. One query."""
    is_limited = Q(limit__isnull=False)
    rows = (
        _todays(moment, period)
        .values("model_name")
        .annotate(
            limits=Coalesce(Sum("limit"), 0),
            spent=Coalesce(Sum("used", filter=is_limited), 0),
            left=Coalesce(Sum(Greatest(F("limit") - F("used"), 0), filter=is_limited & _is_available(moment)), 0),
            known=Count("id", filter=is_limited),
            total=Count("id"),
            requests=Sum("used"),
        )
        .order_by("-requests", "model_name")
    )
    return [
        Remaining(*(row[name] for name in ("model_name", "left", "limits", "spent", "known", "total", "requests")))
        for row in rows
    ]


def running_out(moment: datetime, period: Period) -> Sequence[RunsOut]:
    """Return the projects that run out first at today's rate, at most twenty. Two queries."""
    begin, reset = day_start(today(moment), settings.QUOTA_ZONE), next_reset(moment, settings.QUOTA_ZONE)
    share = max((moment - begin) / (reset - begin), 1e-6)
    quotas = (
        _todays(moment, period)
        .filter(_is_available(moment), limit__gt=F("used"), used__gt=0, used__gte=F("limit") * share)
        .select_related("project")
        .prefetch_related("project__keys")
        .order_by((F("limit") * 1.0 / F("used")).asc(), "id")[:_MOST_AT_ONCE]
    )
    return [
        RunsOut(q.project, q.model_name, q.used, q.limit, begin + (moment - begin) * (q.limit / q.used)) for q in quotas
    ]


def used_up_at(row: Remaining, moment: datetime) -> datetime | None:
    """Return when a model's known limits are used up at today's rate; None if not before the reset.

    It may last longer when some limits are unknown.
    """
    begin, reset = day_start(today(moment), settings.QUOTA_ZONE), next_reset(moment, settings.QUOTA_ZONE)
    if row.left * ((moment - begin) / (reset - moment)) >= row.requests:
        return None
    return moment + (moment - begin) * (row.left / row.requests)


def _is_available(moment: datetime) -> Q:
    """Return the condition for projects without a cooldown until the reset, whatever their count says."""
    return Q(cooldown_until=None) | Q(cooldown_until__lt=next_reset(moment, settings.QUOTA_ZONE))


def _todays(moment: datetime, period: Period) -> Any:
    """Return the quotas of usable projects, annotated with `limit` (requests per day) and `used` (today)."""
    used = Case(When(day=today(moment), then=F("day_requests")), default=Value(0), output_field=IntegerField())
    return quotas_of(period).annotate(limit=limit_in_force("requests_per_day"), used=used)
