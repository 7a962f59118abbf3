"""What models did over time, and which limits are known of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from django.db.models import Count, Max, Min

from proxy.dashboard.reports.period import Period
from proxy.dashboard.reports.pool import quotas_of
from proxy.dashboard.reports.traffic import Sums
from proxy.models.quotas import SET_NAMES, limit_in_force

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


def bars(period: Period, found: Iterable[Sums]) -> ModelBars:
    """Return requests by model in each slot. With a key or project: tries, by the quota day."""
    slots = period.day_slots() if period.has_keys else period.slots()
    place = {slot: number for number, slot in enumerate(slots)}
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(slots))
    for row in found:
        counts[row.model_name][place[row.slot]] += row.requests
    names = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    others = [sum(numbers) for numbers in zip(*(counts[name] for name in names[MOST_MODELS:]), strict=True)]
    requests = {name: counts[name] for name in names[:MOST_MODELS]}
    return ModelBars(slots, requests, others or [0] * len(slots))


def known_limits(period: Period) -> list[KnownLimit]:
    """Return the limits of each model, lowest and highest of all projects that may be asked; one query."""
    in_force = {f"in_force_{name}": limit_in_force(name) for name in SET_NAMES}
    asked: dict[str, Any] = {}
    for name in SET_NAMES:
        limit = f"in_force_{name}"
        asked |= {f"{name}_lowest": Min(limit), f"{name}_highest": Max(limit), f"{name}_known": Count(limit)}
    rows: Any = (
        quotas_of(period)
        .annotate(**in_force)
        .values("model_name")
        .annotate(total=Count("id"), **asked)
        .order_by("model_name")
    )
    return [
        KnownLimit(
            row["model_name"], name, row[f"{name}_lowest"], row[f"{name}_highest"], row[f"{name}_known"], row["total"]
        )
        for row in rows
        for name in SET_NAMES
    ]
