"""Questions about the pool and its usage, answered in a few queries each, for pages and commands."""

from collections import defaultdict
from datetime import date, datetime
from typing import NamedTuple

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, F, Q, QuerySet

from proxy.models import ApiKey, DailyUsage, ExhaustionEvent
from proxy.quota import quota_day


class PoolState(NamedTuple):
    """How many keys there are of each kind. Resting keys are usable ones that rest for at least one model."""

    usable: int
    resting: int
    bad: int
    disabled: int


class UsageRow(NamedTuple):
    """What a key did for a model on a day; tokens: prompt, output and thinking together."""

    key: ApiKey
    model_name: str
    answers: int
    errors: int
    refusals: int
    tokens: int


class Usage(NamedTuple):
    """A day's usage: `rows` by key and model, most answers first, and sums by model in the same shape."""

    rows: list[UsageRow]
    by_model: list[tuple[str, int, int, int, int]]
    answers: int
    errors: int
    refusals: int
    tokens: int


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


def exhaustion_in_force(moment: datetime) -> list[ExhaustionEvent]:
    """Return what is exhausted now, soonest opening first, what waits for somebody last; one query."""
    events = ExhaustionEvent.objects.in_force(moment).filter(key__deleted_at=None).select_related("key", "project")
    return list(events.order_by(F("until").asc(nulls_last=True), "model_name", "key"))


def bad_keys() -> QuerySet[ApiKey]:
    """Return the keys that Google does not take any more, latest first; one query."""
    return ApiKey.objects.bad().select_related("project").order_by("-fault_since")


def usage_of(day: date) -> Usage:
    """Return the usage of a quota day; one query."""
    rows = [
        UsageRow(
            usage.key,
            usage.model_name,
            usage.answers,
            usage.errors,
            usage.refusals,
            usage.prompt_tokens + usage.output_tokens + usage.thinking_tokens,
        )
        for usage in DailyUsage.objects.filter(day=day)
        .select_related("key__project")
        .order_by("-answers", "key", "model_name")
    ]
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in rows:
        for column, number in enumerate(row[2:]):
            sums[row.model_name][column] += number
    by_model = sorted(((name, a, e, r, t) for name, (a, e, r, t) in sums.items()), key=lambda row: -row[1])
    totals = [sum(column) for column in zip(*sums.values(), strict=True)] or [0, 0, 0, 0]
    return Usage(rows, by_model, *totals)


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
