"""The pool as it is now."""

from datetime import date, datetime
from typing import NamedTuple

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, F, Q

from proxy.models import ApiKey, ExhaustionEvent
from proxy.quota import quota_day
from proxy.reports.period import Period


class PoolState(NamedTuple):
    """How many keys there are of each kind. Resting keys are usable ones that rest for at least one model."""

    usable: int
    resting: int
    bad: int
    disabled: int


def today(moment: datetime) -> date:
    """Return the quota day of `moment`."""
    return quota_day(moment, settings.QUOTA_ZONE)


def pool_state(moment: datetime) -> PoolState:
    """Count the keys of the pool; two queries."""
    is_good = Q(fault="")
    counts = ApiKey.objects.present().aggregate(
        usable=Count("id", filter=is_good & Q(is_enabled=True)),
        bad=Count("id", filter=~is_good),
        disabled=Count("id", filter=is_good & Q(is_enabled=False)),
    )
    resting = ApiKey.objects.usable().resting(moment).count()
    return PoolState(resting=resting, **counts)


def exhaustion_in_force(moment: datetime, period: Period) -> list[ExhaustionEvent]:
    """Return what is exhausted now of what `period` is about, soonest opening first; what waits for somebody last."""
    events = ExhaustionEvent.objects.in_force(moment).filter(key__deleted_at=None).select_related("key", "project")
    if period.model_name:
        events = events.filter(model_name__in=["", period.model_name])
    if period.project_id:
        events = events.filter(project=period.project_id)
    if period.key_id:
        events = events.filter(key=period.key_id)
    return list(events.order_by(F("until").asc(nulls_last=True), "model_name", "key"))


def obstacles() -> list[str]:
    """Return what keeps requests from being answered: database, migrations, no usable key; empty when nothing does."""
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return ["The database is behind: run `python manage.py migrate`."]
        if not ApiKey.objects.usable().exists():
            return ["There is no usable key: add some in the admin, or with `python manage.py importkeys key.txt`."]
    except DatabaseError:
        return ["The database does not answer."]
    return []
