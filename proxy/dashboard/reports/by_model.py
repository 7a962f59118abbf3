"""Requests by model over time, and the known limits of models."""

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
    """The requests for each model in each slot."""

    slots: Sequence[datetime | date]
    # By model name, the busiest first.
    requests: dict[str, list[int]]
    # All other models together.
    others: list[int]


class KnownLimit(NamedTuple):
    """A limit of a model, over all usable projects."""

    model_name: str
    # A field of `Quota`.
    name: str
    lowest: int | None
    highest: int | None
    # How many projects have a known limit.
    projects: int
    # How many projects there are.
    all: int


def bars(period: Period, found: Iterable[Sums]) -> ModelBars:
    """Return requests by model in each slot. For a key or project: attempts, by quota day."""
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
    """Return the lowest and highest limits of each model over all usable projects. One query."""
    in_force = {f"in_force_{name}": limit_in_force(name) for name in SET_NAMES}
    numbers: dict[str, Any] = {}
    for name in SET_NAMES:
        limit = f"in_force_{name}"
        numbers |= {f"{name}_lowest": Min(limit), f"{name}_highest": Max(limit), f"{name}_known": Count(limit)}
    rows: Any = (
        quotas_of(period)
        .annotate(**in_force)
        .values("model_name")
        .annotate(total=Count("id"), **numbers)
        .order_by("model_name")
    )
    return [
        KnownLimit(
            row["model_name"], name, row[f"{name}_lowest"], row[f"{name}_highest"], row[f"{name}_known"], row["total"]
        )
        for row in rows
        for name in SET_NAMES
    ]
