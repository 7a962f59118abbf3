"""Outcomes, latency and tokens of requests over time, from hourly and daily sums, never from the log."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from django.db.models import F, Sum

from proxy.dashboard.reports.period import Period
from proxy.models import ApiKey, DailyUsage, FirstByte, FirstByteDay, KeyHour, ModelDay, ModelHour
from proxy.models.history import milliseconds_of

_NAMES = (
    *("at_once", "after_fail_over", "refused", "failed"),
    *("prompt_tokens", "output_tokens", "thinking_tokens", "cached_tokens"),
)


# A slot, a model, and numbers in the order of _NAMES.
_Row = tuple[Any, ...]


class Sums(NamedTuple):
    """The requests for a model in a slot; for a key or project: the attempts."""

    slot: datetime | date
    model_name: str
    # For a key or project: all answers.
    at_once: int = 0
    # For a key or project: 0.
    after_fail_over: int = 0
    # For a key or project: 429s.
    refused: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    cached_tokens: int = 0

    @property
    def requests(self) -> int:
        return self.at_once + self.after_fail_over + self.refused + self.failed

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens + self.thinking_tokens


class Bar(NamedTuple):
    """The requests of an hour, a quota day or a week."""

    begin: datetime | date
    at_once: int = 0
    after_fail_over: int = 0
    refused: int = 0
    failed: int = 0
    tokens: int = 0

    @property
    def requests(self) -> int:
        return self.at_once + self.after_fail_over + self.refused + self.failed


class ModelRow(NamedTuple):
    """The requests for a model in a period."""

    model_name: str
    requests: int
    failed: int
    refused: int
    prompt_tokens: int
    output_tokens: int
    thinking_tokens: int
    cached_tokens: int
    # Milliseconds to the first byte; None when there was no answer, or for a key or project.
    p50: int | None
    p95: int | None


def sums(period: Period) -> list[Sums]:
    """Return the requests of a period by slot and model. Two queries.

    For a key or project: its attempts on whole quota days, since hours have no models. One query.
    """
    found: defaultdict[tuple[datetime | date, str], list[int]] = defaultdict(lambda: [0] * len(_NAMES))
    for slot, model_name, *numbers in _of_keys(period) if period.has_keys else _of_pool(period):
        sums_of_slot = found[slot, model_name]
        for place, number in enumerate(numbers):
            sums_of_slot[place] += number
    return [Sums(*of, *numbers) for of, numbers in found.items()]


def bars(period: Period, found: Iterable[Sums]) -> list[Bar]:
    """Return the requests in every slot, including the empty ones. Hours of a key or project take one more query."""
    if period.has_keys and period.is_hourly:
        found = _hours_of_keys(period)
    numbers = {slot: [0] * 5 for slot in period.slots()}
    for row in found:
        bar = numbers[row.slot]
        for place, number in enumerate((row.at_once, row.after_fail_over, row.refused, row.failed, row.tokens)):
            bar[place] += number
    return [Bar(slot, *bar) for slot, bar in numbers.items()]


def total(several: Sequence[Bar]) -> Bar:
    """Return the sums of bars, at least one."""
    return Bar(several[0].begin, *map(sum, zip(*(bar[1:] for bar in several), strict=True)))


def total_of(period: Period) -> Bar:
    """Return the sums of a whole period. Two queries."""
    if period.has_keys:
        return total(bars(period, sums(period)))
    named = {f"sum_{place}": number for place, number in enumerate((*map(Sum, _NAMES[:4]), sum(map(Sum, _NAMES[4:7]))))}
    columns = zip(*(rows.aggregate(**named).values() for rows in _kept(period, ModelDay, ModelHour)), strict=True)
    return Bar(period.first, *(sum(filter(None, column)) for column in columns))


def models(found: Iterable[Sums], steps: dict[str, Counter[int]]) -> list[ModelRow]:
    """Return the requests by model, the busiest first. steps: from `first_byte_steps`."""
    numbers: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 7)
    for row in found:
        of_model = numbers[row.model_name]
        for place, number in enumerate((row.requests, row.failed, row.refused, *row[6:])):
            of_model[place] += number
    rows = [
        ModelRow(name, *of_model, *(percentile(steps.get(name, Counter()), share) for share in (0.5, 0.95)))
        for name, of_model in numbers.items()
    ]
    return sorted(rows, key=lambda row: (-row.requests, row.model_name))


def percentile(steps: Counter[int], share: float) -> int | None:
    """Return the duration, in ms, within which `share` of the answers began; None when there are no answers."""
    left = steps.total() * share
    for step in sorted(steps):
        left -= steps[step]
        if left <= 0:
            return milliseconds_of(step)
    return None


def first_byte_steps(period: Period) -> dict[str, Counter[int]]:
    """Return for each model how many answers began at each step of `first_byte_step`. Two queries.

    Empty for a key or project, since only the whole pool is measured.
    """
    steps: defaultdict[str, Counter[int]] = defaultdict(Counter)
    if period.has_keys:
        return steps
    for rows in _kept(period, FirstByteDay, FirstByte):
        for model_name, step, answers in rows.values_list("model_name", "step").annotate(Sum("answers")):
            steps[model_name][step] += answers
    return steps


def _kept(period: Period, days: Any, hours: Any) -> list[Any]:
    """Return the rows of a period in two tables: the days, and the hours that are not in a day yet."""
    found = [
        days.objects.filter(day__range=(period.first, period.last)).order_by(),
        hours.objects.filter(hour__gte=period.since, hour__lt=period.until).order_by(),
    ]
    return [rows.filter(model_name=period.model_name) for rows in found] if period.model_name else found


def _of_pool(period: Period) -> Iterator[_Row]:
    days, hours = _kept(period, ModelDay, ModelHour)
    for day, *row in days.values_list("day", "model_name", *_NAMES):
        yield (period.slot_of_day(day), *row)
    slots: dict[datetime, datetime | date] = {}
    for hour, *row in hours.values_list("hour", "model_name", *_NAMES):
        if hour not in slots:
            slots[hour] = period.slot_of(hour)
        yield (slots[hour], *row)


def _of_keys(period: Period) -> Iterator[_Row]:
    usage = _only(DailyUsage.objects.filter(day__range=(period.first, period.last)), period)
    if period.model_name:
        usage = usage.filter(model_name=period.model_name)
    numbers = (Sum(F("answers") - F("errors")), Sum("refusals"), Sum("errors"), *map(Sum, _NAMES[4:]))
    named = {f"sum_{place}": number for place, number in enumerate(numbers)}
    for day, model_name, given, *row in usage.values_list("day", "model_name").annotate(**named).order_by():
        yield (period.slot_of_day(day), model_name, given, 0, *row)


def _hours_of_keys(period: Period) -> Iterator[Sums]:
    hours = _only(KeyHour.objects.filter(hour__gte=period.since, hour__lt=period.until), period)
    numbers = {"given": Sum(F("answers") - F("errors")), "refused": Sum("refusals"), "broken": Sum("errors")}
    for hour, given, refused, broken in hours.values_list("hour").annotate(**numbers).order_by():
        yield Sums(hour, "", given, 0, refused, broken)


def _only(rows: Any, period: Period) -> Any:
    if period.key_id:
        rows = rows.filter(key=period.key_id)
    if period.project_id:
        rows = rows.filter(key__in=ApiKey.objects.filter(project=period.project_id).values("id"))
    return rows
