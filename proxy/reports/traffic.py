"""How requests ended over time, how long they took, and what they cost. From sums of hours and days, never the log."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, NamedTuple

from django.db.models import Sum

from proxy.history import milliseconds_of
from proxy.models import DailyUsage, FirstByte, FirstByteDay, KeyHour, ModelHour
from proxy.reports.period import Period

OUTCOMES = ("at_once", "after_fail_over", "refused", "failed")
TOKENS = ("prompt_tokens", "output_tokens", "thinking_tokens", "cached_tokens")


_SUMS = {f"sum_{name}": Sum(name) for name in OUTCOMES} | {
    "sum_tokens": Sum("prompt_tokens") + Sum("output_tokens") + Sum("thinking_tokens")
}


class Bar(NamedTuple):
    """What happened in an hour or on a quota day. With a key or project: tries of keys, and refusals are their 429s."""

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
    """What a model did in a period; times in milliseconds, None where there was no answer."""

    model_name: str
    requests: int
    failed: int
    refused: int
    prompt_tokens: int
    output_tokens: int
    thinking_tokens: int
    cached_tokens: int
    p50: int | None
    p95: int | None


def bars(period: Period) -> list[Bar]:
    """Return what happened, by the hour or by the quota day, those without any request included; one query."""
    if period.has_keys:
        sums = _of_keys(period)
    else:
        sums = defaultdict(Counter)
        for hour, *numbers in _hours(period).values("hour").annotate(**_SUMS).values_list("hour", *_SUMS):
            slot = sums[period.slot_of(hour)]
            for name, number in zip(Bar._fields[1:], numbers, strict=True):
                slot[name] += number
    return [Bar(slot, **sums[slot]) for slot in period.slots()]


def total(period: Period) -> Bar:
    """Return the sums of a period; one query."""
    if period.has_keys:
        return totals(bars(period))
    sums = _hours(period).aggregate(**_SUMS)
    return Bar(period.first, *(sums[name] or 0 for name in _SUMS))


def totals(all_bars: Iterable[Bar]) -> Bar:
    """Return the sums of bars."""
    several = list(all_bars)
    sums = (sum(column) for column in zip(*(bar[1:] for bar in several), strict=True))
    return Bar(several[0].begin, *sums) if several else Bar(date.min)


def percentile(steps: Counter[int], share: float) -> int | None:
    """Return the duration that `share` of the answers did not exceed, in ms; None when there are none."""
    left = steps.total() * share
    for step in sorted(steps):
        left -= steps[step]
        if left <= 0:
            return milliseconds_of(step)
    return None


def first_byte_steps(period: Period) -> dict[str, Counter[int]]:
    """Return for each model how many answers began at each step of `first_byte_step`; two queries."""
    steps: defaultdict[str, Counter[int]] = defaultdict(Counter)
    days: Any = FirstByteDay.objects.filter(day__range=(period.first, period.last))
    hours: Any = FirstByte.objects.filter(hour__gte=period.since, hour__lt=period.until)
    for rows in (days, hours):
        found = rows.filter(model_name=period.model_name) if period.model_name else rows
        for model_name, step, answers in found.order_by().values_list("model_name", "step").annotate(Sum("answers")):
            steps[model_name][step] += answers
    return steps


def models(period: Period, steps: dict[str, Counter[int]] | None = None) -> list[ModelRow]:
    """Return what each model did, the busiest first; three queries, one when `first_byte_steps` are there."""
    steps = first_byte_steps(period) if steps is None else steps
    sums = _hours(period).values("model_name").annotate(**{f"sum_{name}": Sum(name) for name in (*OUTCOMES, *TOKENS)})
    rows = [
        ModelRow(
            row["model_name"],
            sum(row[f"sum_{name}"] for name in OUTCOMES),
            row["sum_failed"],
            row["sum_refused"],
            row["sum_prompt_tokens"],
            row["sum_output_tokens"],
            row["sum_thinking_tokens"],
            row["sum_cached_tokens"],
            p50=percentile(steps.get(row["model_name"], Counter()), 0.5),
            p95=percentile(steps.get(row["model_name"], Counter()), 0.95),
        )
        for row in sums
    ]
    return sorted(rows, key=lambda row: (-row.requests, row.model_name))


def _hours(period: Period) -> Any:
    hours = ModelHour.objects.filter(hour__gte=period.since, hour__lt=period.until).order_by()
    return hours.filter(model_name=period.model_name) if period.model_name else hours


def _of_keys(period: Period) -> defaultdict[Any, Counter[str]]:
    """Return the sums of some keys. Hours know no models, so that a model is looked up day by day."""
    sums: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    numbers = {"given": Sum("answers"), "broken": Sum("errors"), "429s": Sum("refusals")}
    rows: Any
    if period.is_hourly and not period.model_name:
        rows = KeyHour.objects.filter(hour__gte=period.since, hour__lt=period.until)
        rows = _only(rows, period).values("hour").annotate(**numbers)
    else:
        rows = DailyUsage.objects.filter(day__range=(period.first, period.last))
        rows = _only(rows, period)
        if period.model_name:
            rows = rows.filter(model_name=period.model_name)
        spent = {"tokens": Sum("prompt_tokens") + Sum("output_tokens") + Sum("thinking_tokens")}
        rows = rows.values("day").annotate(**numbers, **spent)
    for row in rows.order_by():
        slot = sums[period.slot_of(row["hour"]) if "hour" in row else row["day"]]
        slot["at_once"] += row["given"] - row["broken"]
        slot["failed"] += row["broken"]
        slot["refused"] += row["429s"]
        slot["tokens"] += row.get("tokens", 0)
    return sums


def _only(rows: Any, period: Period) -> Any:
    if period.key_id:
        rows = rows.filter(key=period.key_id)
    return rows.filter(key__project=period.project_id) if period.project_id else rows
