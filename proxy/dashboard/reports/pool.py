"""The current state of the pool."""

from datetime import date, datetime
from typing import NamedTuple

from django.conf import settings
from django.db.models import F

from proxy.dashboard.reports.period import Period
from proxy.gemini.quota_day import quota_day
from proxy.models import ApiKey, ExhaustionEvent, KeyState, Quota
from proxy.models.quotas import QuotaQuerySet


class PoolState(NamedTuple):
    """The number of keys in each state."""

    usable: int
    # Usable, but rate-limited or exhausted for at least one model.
    limited: int
    bad: int
    disabled: int


def today(moment: datetime) -> date:
    """Return the quota day of `moment`."""
    return quota_day(moment, settings.QUOTA_ZONE)


def pool_state(moment: datetime) -> PoolState:
    """Count the keys of the pool. Two queries."""
    counts = ApiKey.objects.count_by_state()
    limited = ApiKey.objects.usable().limited(moment).count()
    return PoolState(counts[KeyState.USABLE], limited, counts[KeyState.BAD], counts[KeyState.DISABLED])


def exhaustion_in_force(moment: datetime, period: Period) -> list[ExhaustionEvent]:
    """Return the events in force for the model, project or key of `period`; those that end first come first."""
    events = ExhaustionEvent.objects.in_force(moment).about(period.model_name).filter(key__deleted_at=None)
    events = events.select_related("key", "project")
    if period.project_id:
        events = events.filter(project=period.project_id)
    if period.key_id:
        events = events.filter(key=period.key_id)
    return list(events.order_by(F("until").asc(nulls_last=True), "model_name", "key"))


def quotas_of(period: Period) -> QuotaQuerySet:
    """Return the quotas of usable projects for the model, project or key of `period`."""
    quotas = Quota.objects.of_models().filter(is_barred=False)
    if period.model_name:
        quotas = quotas.filter(model_name=period.model_name)
    if period.project_id:
        quotas = quotas.filter(project=period.project_id)
    return quotas.filter(project__keys=period.key_id) if period.key_id else quotas
