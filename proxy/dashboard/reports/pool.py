"""The pool as it is now."""

from datetime import date, datetime
from typing import NamedTuple

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import F

from proxy.dashboard.reports.period import Period
from proxy.gemini.quota_day import quota_day
from proxy.models import ApiKey, ExhaustionEvent, KeyState, Quota
from proxy.models.quotas import QuotaQuerySet


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
    counts = ApiKey.objects.count_by_state()
    resting = ApiKey.objects.usable().limited(moment).count()
    return PoolState(counts[KeyState.USABLE], resting, counts[KeyState.BAD], counts[KeyState.DISABLED])


def exhaustion_in_force(moment: datetime, period: Period) -> list[ExhaustionEvent]:
    """Return what is exhausted now of what `period` is about, soonest opening first; what waits for somebody last."""
    events = ExhaustionEvent.objects.in_force(moment).about(period.model_name).filter(key__deleted_at=None)
    events = events.select_related("key", "project")
    if period.project_id:
        events = events.filter(project=period.project_id)
    if period.key_id:
        events = events.filter(key=period.key_id)
    return list(events.order_by(F("until").asc(nulls_last=True), "model_name", "key"))


def quotas_of(period: Period) -> QuotaQuerySet:
    """Return the quotas of models that `period` is about (not when), of projects that may be asked."""
    quotas = Quota.objects.of_models().filter(is_barred=False)
    if period.model_name:
        quotas = quotas.filter(model_name=period.model_name)
    if period.project_id:
        quotas = quotas.filter(project=period.project_id)
    return quotas.filter(project__keys=period.key_id) if period.key_id else quotas


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
