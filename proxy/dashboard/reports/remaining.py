"""What is left of the pool today, and whether it lasts until the reset."""

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
    """Requests left today for a model, over all projects that may be asked.

    left, used, limit: of the projects with a known limit, which are `known` of `all`; asked: requests of them all.
    """

    model_name: str
    left: int
    limit: int
    used: int
    known: int
    all: int
    asked: int


class RunsOut(NamedTuple):
    """A project whose day is spent before the reset, if it goes on as today."""

    project: Project
    model_name: str
    used: int
    limit: int
    moment: datetime


def remaining(moment: datetime, period: Period) -> list[Remaining]:
    """Return what is left today of each model, the most asked first; one query."""
    is_limited = Q(limit__isnull=False)
    rows = (
        _todays(moment, period)
        .values("model_name")
        .annotate(
            limits=Coalesce(Sum("limit"), 0),
            spent=Coalesce(Sum("used", filter=is_limited), 0),
            rest=Coalesce(Sum(Greatest(F("limit") - F("used"), 0), filter=is_limited & _has_more(moment)), 0),
            known=Count("id", filter=is_limited),
            total=Count("id"),
            asked=Sum("used"),
        )
        .order_by("-asked", "model_name")
    )
    return [
        Remaining(*(row[name] for name in ("model_name", "rest", "limits", "spent", "known", "total", "asked")))
        for row in rows
    ]


def running_out(moment: datetime, period: Period) -> Sequence[RunsOut]:
    """Return the projects that run out first at the rate of today, at most twenty; two queries."""
    begin, reset = day_start(today(moment), settings.QUOTA_ZONE), next_reset(moment, settings.QUOTA_ZONE)
    share = max((moment - begin) / (reset - begin), 1e-6)
    quotas = (
        _todays(moment, period)
        .filter(_has_more(moment), limit__gt=F("used"), used__gt=0, used__gte=F("limit") * share)
        .select_related("project")
        .prefetch_related("project__keys")
        .order_by((F("limit") * 1.0 / F("used")).asc(), "id")[:_MOST_AT_ONCE]
    )
    return [
        RunsOut(q.project, q.model_name, q.used, q.limit, begin + (moment - begin) * (q.limit / q.used)) for q in quotas
    ]


def used_up_at(row: Remaining, moment: datetime) -> datetime | None:
    """Return when what is known to be left of a model is used up at the rate of today; None: not before the reset.

    Where not all limits are known, it lasts longer than that.
    """
    begin, reset = day_start(today(moment), settings.QUOTA_ZONE), next_reset(moment, settings.QUOTA_ZONE)
    if row.left * ((moment - begin) / (reset - moment)) >= row.asked:
        return None
    return moment + (moment - begin) * (row.left / row.asked)


def _has_more(moment: datetime) -> Q:
    """Of projects that do not rest for all of today: others may spend their quota as well."""
    return Q(cooldown_until=None) | Q(cooldown_until__lt=next_reset(moment, settings.QUOTA_ZONE))


def _todays(moment: datetime, period: Period) -> Any:
    """Return the quotas of usable keys, with `limit` of a day and what was `used` of it."""
    used = Case(When(day=today(moment), then=F("day_requests")), default=Value(0), output_field=IntegerField())
    return quotas_of(period).annotate(limit=limit_in_force("requests_per_day"), used=used)
