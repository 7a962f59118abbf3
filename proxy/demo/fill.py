"""Writes the sample pool and its history into an empty database."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Model

from proxy.demo.hours import HourRow, first_bytes, key_hours, model_hours
from proxy.demo.log import log
from proxy.demo.plan import DemoProject, Plan
from proxy.demo.pool import make_pool, write_exhaustion, write_open_ended_exhaustion, write_quotas
from proxy.demo.usage import HOUR, Day, ExhaustedQuota, days, summed
from proxy.gemini.quota_day import quota_day
from proxy.models import ApiKey, DailyUsage, FirstByte, FirstByteDay, KeyHour, LoggedRequest, ModelDay, ModelHour
from proxy.models.history import FIRST_BYTE_HOURS_DAYS, HOURS_DAYS

_LOG_DAYS = 7
_MOST_AT_ONCE = 20_000


class Created(NamedTuple):
    """How many rows were created."""

    keys: int
    projects: int
    usage: int
    requests: int


def is_empty() -> bool:
    """Tell whether the database has no keys, no usage and no requests."""
    return not any(
        model._default_manager.exists() for model in (ApiKey, DailyUsage, ModelHour, ModelDay, KeyHour, LoggedRequest)
    )


def fill(plan: Plan, moment: datetime, seed: int) -> Created:
    """Fill an empty database, in one transaction. The same seed at the same moment creates the same rows."""
    rng = random.Random(seed)  # noqa: S311  # nothing here is a secret
    today = quota_day(moment, settings.QUOTA_ZONE)
    with transaction.atomic():
        pool = make_pool(plan, today, moment, rng)
        exhausted: list[ExhaustedQuota] = []
        recent: list[HourRow] = []
        written, counts = 0, Counter[tuple[int, str]]()
        for day in days(pool, plan.days, today, moment, settings.QUOTA_ZONE, rng=rng):
            written += len(day.rows)
            recent += _write_day(day, moment, rng)
            exhausted += day.exhausted
            if day.day == today:
                counts = _by_project(pool, day)
        write_exhaustion(exhausted, moment)
        write_open_ended_exhaustion(pool, moment)
        write_quotas(pool, counts, today, moment)
        keys = [key.id for project in pool for key in project.keys if key.last >= today]
        _write_log(log(recent, plan.log_rows, keys, moment, refused=settings.EXHAUSTED_STATUS, rng=rng))
        _write_last_used(pool, today, moment, rng)
    return Created(plan.keys, len(pool), written, plan.log_rows if recent and keys else 0)


def _write_day(day: Day, moment: datetime, rng: random.Random) -> list[HourRow]:
    """Write a quota day. Return its hours that are recent enough for the request log."""
    adapt = connection.ops.adapt_datetimefield_value
    moments = {hour: adapt(hour) for hour in day.hours}
    written = day.day.isoformat()
    insert(
        DailyUsage,
        ("key_id", "model_name", "day", "answers", "errors", "refusals", *_TOKENS, "imported_answers"),
        ((row.key_id, row.model_name, written, *row.sums, 0) for row in day.rows),
    )
    hours = list(model_hours(day, rng))
    steps = [step for row in hours for step in first_bytes(row, is_bad=day.is_bad, rng=rng)]
    of_model = ("model_name", "at_once", "after_fail_over", "refused", "failed", *_TOKENS)
    of_step = ("model_name", "step", "answers")
    if day.hours[-1] > moment - timedelta(days=HOURS_DAYS):
        insert(ModelHour, ("hour", *of_model), ((moments[row.hour], *row[1:]) for row in hours))
        key_rows = ((row.key_id, moments[row.hour], *row[2:]) for row in key_hours(day, rng))
        insert(KeyHour, ("key_id", "hour", "answers", "errors", "refusals"), key_rows)
    else:
        of_day = summed((row.model_name, row[2:]) for row in hours)
        insert(ModelDay, ("day", *of_model), ((written, name, *numbers) for name, numbers in of_day.items()))
    if day.hours[-1] > moment - timedelta(days=FIRST_BYTE_HOURS_DAYS):
        insert(FirstByte, ("hour", *of_step), ((moments[step.hour], *step[1:]) for step in steps))
    else:
        steps_of_day = summed((step[1:3], step[3:]) for step in steps)
        insert(FirstByteDay, ("day", *of_step), ((written, *of, *numbers) for of, numbers in steps_of_day.items()))
    return [row for row in hours if row.hour > moment - timedelta(days=_LOG_DAYS) + HOUR]


def _write_log(rows: Iterable[Any]) -> None:
    adapt = connection.ops.adapt_datetimefield_value
    columns = (
        "began", "request_id", "method", "action", "model_name", "attempts", "status", "outcome", "waited_ms",
        "first_byte_ms", "duration_ms", *_TOKENS, "key_id",
    )  # fmt: skip
    insert(LoggedRequest, columns, ((adapt(row.began), *row[1:]) for row in rows))


def _write_last_used(pool: Sequence[DemoProject], today: date, moment: datetime, rng: random.Random) -> None:
    days_ago = {key.id: max((today - key.last).days, 0) for project in pool for key in project.keys}
    rows = list(ApiKey.objects.all())
    for row in rows:
        ago = timedelta(days=days_ago[row.pk], minutes=int(rng.expovariate(1 / 40)))
        row.last_used = (moment - ago).replace(second=0, microsecond=0)
    ApiKey.objects.bulk_update(rows, ["last_used"], batch_size=200)


def _by_project(pool: Sequence[DemoProject], day: Day) -> Counter[tuple[int, str]]:
    """Return the number of answers on a day by project ID and model name."""
    project_ids = {key.id: project.id for project in pool for key in project.keys}
    counts = Counter[tuple[int, str]]()
    for row in day.rows:
        counts[project_ids[row.key_id], row.model_name] += row.sums.answers
    return counts


_TOKENS = ("prompt_tokens", "output_tokens", "thinking_tokens", "cached_tokens")


def insert(model: type[Model], columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows without the ORM: for two years of history, bulk_create takes five times as long."""
    marks = ", ".join(["%s"] * len(columns))
    statement = f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608  # our names
    with connection.cursor() as cursor:
        iterator = iter(rows)
        while chunk := list(islice(iterator, _MOST_AT_ONCE)):
            cursor.executemany(statement, chunk)
