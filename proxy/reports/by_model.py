"""What models did over time, and which limits are known of them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import CharField, Count, F, Max, Min, Sum
from django.db.models.functions import Cast, Coalesce

from proxy.models import ApiKey, DailyUsage, ModelHour, Quota
from proxy.models.quotas import SET_NAMES
from proxy.reports import traffic
from proxy.reports.period import Period
from proxy.reports.traffic import OUTCOMES, TOKENS, ModelRow

MOST_MODELS = 5


class ModelBars(NamedTuple):
    """Requests of each model in each slot. requests: by name, the busiest first; others: of all the rest."""

    slots: Sequence[datetime | date]
    requests: dict[str, list[int]]
    others: list[int]


class KnownLimit(NamedTuple):
    """A limit of a model. name: a field of `Quota`; projects: how many have a known one, of all that may be asked."""

    model_name: str
    name: str
    lowest: int | None
    highest: int | None
    projects: int
    all: int


def bars(period: Period) -> ModelBars:
    """Return requests by model, by the hour or quota day; one query. With a key or project: tries, by the day."""
    slots: Sequence[datetime | date] = period.slots()
    if period.has_keys:
        slots = [period.first + timedelta(days=number) for number in range(period.days)]
    place = {slot: number for number, slot in enumerate(slots)}
    counts: dict[str, list[int]] = {}
    for slot, model_name, number in _counted(period):
        counts.setdefault(model_name, [0] * len(slots))[place[slot]] += number
    names = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    others = [sum(numbers) for numbers in zip(*(counts[name] for name in names[MOST_MODELS:]), strict=True)]
    requests = {name: counts[name] for name in names[:MOST_MODELS]}
    return ModelBars(slots, requests, others or [0] * len(slots))


def models(period: Period) -> list[ModelRow]:
    """Return what each model did, the busiest first; three queries. With a key or project: tries, by quota days."""
    if not period.has_keys:
        return traffic.models(period)
    names = ("answers", "errors", "refusals", *TOKENS)
    sums = _usage(period).values("model_name").annotate(**{f"sum_{name}": Sum(name) for name in names}).order_by()
    rows = [
        ModelRow(
            row["model_name"],
            row["sum_answers"] + row["sum_refusals"],
            row["sum_errors"],
            row["sum_refusals"],
            row["sum_prompt_tokens"],
            row["sum_output_tokens"],
            row["sum_thinking_tokens"],
            row["sum_cached_tokens"],
            p50=None,
            p95=None,
        )
        for row in sums
    ]
    return sorted(rows, key=lambda row: (-row.requests, row.model_name))


def known_limits(period: Period) -> list[KnownLimit]:
    """Return the limits of each model, lowest and highest of all projects that may be asked; one query."""
    quotas = Quota.objects.of_models().filter(is_barred=False)
    if period.model_name:
        quotas = quotas.filter(model_name=period.model_name)
    if period.project_id:
        quotas = quotas.filter(project=period.project_id)
    if period.key_id:
        quotas = quotas.filter(project__keys=period.key_id)
    in_force = {f"in_force_{name}": Coalesce(name, f"learned_{name}") for name in SET_NAMES}
    asked: dict[str, Any] = {}
    for name in SET_NAMES:
        limit = f"in_force_{name}"
        asked |= {f"{name}_lowest": Min(limit), f"{name}_highest": Max(limit), f"{name}_known": Count(limit)}
    rows: Any = (
        quotas.annotate(**in_force).values("model_name").annotate(total=Count("id"), **asked).order_by("model_name")
    )
    return [
        KnownLimit(
            row["model_name"], name, row[f"{name}_lowest"], row[f"{name}_highest"], row[f"{name}_known"], row["total"]
        )
        for row in rows
        for name in SET_NAMES
    ]


def _counted(period: Period) -> Iterator[tuple[datetime | date, str, int]]:
    """Return slot, model and requests of each row that there is."""
    if period.has_keys:
        yield from (
            _usage(period).values_list("day", "model_name").annotate(tries=Sum(F("answers") + F("refusals"))).order_by()
        )
        return
    hours = ModelHour.objects.filter(hour__gte=period.since, hour__lt=period.until)
    if period.model_name:
        hours = hours.filter(model_name=period.model_name)
    # Hours as text, and each read once: there are a hundred thousand rows in two years, and reading them is slow.
    number = F(OUTCOMES[0]) + F(OUTCOMES[1]) + F(OUTCOMES[2]) + F(OUTCOMES[3])
    rows = hours.order_by().annotate(text=Cast("hour", CharField()), number=number)
    slots: dict[str, datetime | date] = {}
    for text, model_name, count in rows.values_list("text", "model_name", "number"):
        if text not in slots:
            slots[text] = period.slot_of(datetime.fromisoformat(text).replace(tzinfo=UTC))
        yield slots[text], model_name, count


def _usage(period: Period) -> Any:
    usage = DailyUsage.objects.filter(day__range=(period.first, period.last))
    if period.model_name:
        usage = usage.filter(model_name=period.model_name)
    if period.key_id:
        usage = usage.filter(key=period.key_id)
    if period.project_id:
        usage = usage.filter(key__in=ApiKey.objects.filter(project=period.project_id).values("id"))
    return usage
