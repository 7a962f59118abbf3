"""The usage of the sample keys on each quota day, and the quotas that it exhausted. No database."""

import math
import random
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

from proxy.demo.plan import MODELS, DemoKey, DemoProject
from proxy.gemini.quota_day import day_start
from proxy.gemini.refusals import Window

HOUR = timedelta(hours=1)
_Of = TypeVar("_Of")
_BAD_WEEK = range(30, 37)  # days ago
_RATE_LIMITED = 0.02  # share of days with a rate limit by the minute, for each project and model
_FORCED = 3  # at least this many projects are exhausted today, whatever the time


class Sums(NamedTuple):
    """Fields of DailyUsage, in its order, without those that are always 0."""

    answers: int
    errors: int
    refusals: int
    prompt: int
    output: int
    thinking: int
    cached: int


class UsageRow(NamedTuple):
    """The usage of a key with one model on a day."""

    key_id: int
    model_name: str
    sums: Sums


class ExhaustedQuota(NamedTuple):
    """Fields of ExhaustionEvent."""

    project_id: int
    key_id: int
    model_name: str
    window: Window
    limit: int
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Day:
    """A quota day and its usage."""

    day: date
    # The start of each hour.
    hours: list[datetime]
    # The cumulative share of the day's requests by the end of each hour. The last is 1.
    shares: list[float]
    # Whether more requests fail than usual.
    is_bad: bool
    rows: list[UsageRow] = field(default_factory=list)
    exhausted: list[ExhaustedQuota] = field(default_factory=list)

    def by_model(self) -> dict[str, Sums]:
        """Return the sums of each model, over all keys."""
        sums = summed((row.model_name, row.sums) for row in self.rows)
        return {name: Sums(*numbers) for name, numbers in sums.items()}

    def by_key(self) -> dict[int, Sums]:
        """Return the sums of each key, over all models."""
        sums = summed((row.key_id, row.sums) for row in self.rows)
        return {key_id: Sums(*numbers) for key_id, numbers in sums.items()}


def days(
    pool: Sequence[DemoProject], number: int, today: date, moment: datetime, zone: tzinfo, *, rng: random.Random
) -> Iterator[Day]:
    """Yield `number` quota days, the last of which is today and ends at `moment`."""
    for ago in reversed(range(number)):
        day = today - timedelta(days=ago)
        end = day_start(day + timedelta(days=1), zone)
        hours = _hours(day_start(day, zone), end)
        weights = [_rhythm(hour, zone, rng) for hour in hours]
        whole = sum(weights)
        if not ago:
            hours = [hour for hour in hours if hour < moment]
            weights = weights[: len(hours)]
            weights[-1:] = [weight * min((moment - hours[-1]) / HOUR, 1) for weight in weights[-1:]]
        if not hours:  # a day that has just begun
            continue
        shares = [weight / sum(weights) for weight in accumulate(weights)]
        made = Day(day, hours, [*shares[:-1], 1.0], ago in _BAD_WEEK)
        demand = (0.45 if day.weekday() >= 5 else 1) * (1 - 0.5 * ago / number) * rng.lognormvariate(0, 0.08)
        _add_usage(made, pool, demand * sum(weights) / whole, min(end, moment), end, is_today=not ago, rng=rng)
        yield made


def spread(total: int, shares: Sequence[float], rng: random.Random) -> list[int]:
    """Split `total` into whole numbers. shares: cumulative, the last is 1."""
    phase = rng.random()
    marks = [int(total * share + phase) for share in shares]
    return [after - before for before, after in pairwise([0, *marks])]


def _add_usage(
    made: Day,
    pool: Sequence[DemoProject],
    demand: float,
    latest: datetime,
    reset: datetime,
    *,
    is_today: bool,
    rng: random.Random,
) -> None:
    forced = 0
    for project in pool:
        keys = [key for key in project.keys if key.first <= made.day <= key.last]
        if not keys:
            continue
        for model_name, model in MODELS.items():
            limit = project.limits_of(model_name).requests_per_day or 0
            asked = limit * model.share * project.appetite * demand * rng.lognormvariate(0, 0.25)
            if is_today and project.has_known_limits and forced < _FORCED and model.thinking:
                forced += 1
                asked = limit * 1.3
            is_exhausted = project.has_known_limits and asked >= limit
            if is_exhausted:
                index = min(bisect(made.shares, limit / asked), len(made.hours) - 1)
                since = min(made.hours[index] + rng.random() * HOUR, latest - timedelta(seconds=rng.uniform(60, 600)))
                since = max(since, made.hours[0])
                key_id = keys[-1].id
                made.exhausted.append(ExhaustedQuota(project.id, key_id, model_name, Window.DAY, limit, since, reset))
            if project.has_known_limits and rng.random() < _RATE_LIMITED:
                made.exhausted.append(_rate_limited(made, project, keys[0].id, model_name, rng))
            answers = limit if is_exhausted else min(int(asked + rng.random()), int(limit * 0.95))
            made.rows.extend(_rows(made, keys, model_name, answers, is_exhausted, rng=rng))


def _rate_limited(made: Day, project: DemoProject, key_id: int, model_name: str, rng: random.Random) -> ExhaustedQuota:
    """Return a rate limit by the minute at some time of the day."""
    limits = project.limits_of(model_name)
    is_tokens = rng.random() < 0.4
    window, limit = (
        (Window.TOKENS, limits.input_tokens_per_minute) if is_tokens else (Window.MINUTE, limits.requests_per_minute)
    )
    since = made.hours[0] + rng.random() * (made.hours[-1] - made.hours[0])
    until = since + timedelta(seconds=rng.uniform(5, 60))
    return ExhaustedQuota(project.id, key_id, model_name, window, limit or 0, since, until)


def _rows(
    made: Day, keys: Sequence[DemoKey], model_name: str, answers: int, is_exhausted: bool, *, rng: random.Random
) -> Iterator[UsageRow]:
    shares = [number / len(keys) for number in range(1, len(keys) + 1)]
    model = MODELS[model_name]
    for key, count in zip(keys, spread(answers, shares, rng), strict=True):
        errors = min(int(count * (0.07 if made.is_bad else 0.006) + rng.random()), count)
        refusals = int(count * 0.04 + rng.random()) + (is_exhausted and key is keys[-1])
        if count or refusals:
            good = (count - errors) * rng.uniform(0.8, 1.25)
            tokens = (int(good * mean) for mean in model[4:])
            yield UsageRow(key.id, model_name, Sums(count, errors, refusals, *tokens))


def _hours(since: datetime, until: datetime) -> list[datetime]:
    """Return the UTC hours that start in this period. In most time zones, they cover it exactly."""
    first = since.replace(minute=0, second=0, microsecond=0)
    first += HOUR * (first < since)
    return [first + number * HOUR for number in range(math.ceil((until - first) / HOUR))]


def _rhythm(hour: datetime, zone: tzinfo, rng: random.Random) -> float:
    """Return the relative demand in an hour: highest in the early afternoon, lowest at night."""
    by_day = 1 + 0.75 * math.cos((hour.astimezone(zone).hour - 14) / 24 * math.tau)
    return by_day * rng.lognormvariate(0, 0.12)


def summed(rows: Iterable[tuple[_Of, tuple[int, ...]]]) -> dict[_Of, list[int]]:
    """Add up rows of numbers that have the same key."""
    columns: defaultdict[_Of, list[tuple[int, ...]]] = defaultdict(list)
    for of, numbers in rows:
        columns[of].append(numbers)
    return {of: [*map(sum, zip(*several, strict=True))] for of, several in columns.items()}
