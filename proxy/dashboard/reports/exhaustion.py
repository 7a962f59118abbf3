"""Which quotas were exceeded on a quota day, when, and how many more projects would have been enough."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from statistics import median
from typing import Any, NamedTuple

from django.db.models import Count, Min, Q

from proxy.dashboard.reports.period import Period
from proxy.gemini.quota_day import day_start
from proxy.gemini.refusals import Window
from proxy.models import ApiKey, ExhaustionEvent

MOST_LANES = 100
MOST_EVENTS = 300
# A refusal sooner than this after midnight is about yesterday's quota, since clocks differ.
_SHORTEST_DAY = timedelta(minutes=1)
_LONGEST_COOLDOWN = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class QuotaDay:
    """A quota day. It has 23 or 25 hours when the clocks change."""

    day: date
    # UTC.
    start: datetime
    # UTC, exclusive.
    end: datetime

    @classmethod
    def of(cls, day: date, zone: tzinfo) -> "QuotaDay":
        return cls(day, day_start(day, zone), day_start(day + timedelta(days=1), zone))

    def share(self, moment: datetime) -> float:
        """Return the share of the day that is over at `moment`: 0 before the day, 1 after it."""
        return min(max((moment - self.start) / (self.end - self.start), 0.0), 1.0)

    def moment(self, share: float) -> datetime:
        """Return the moment at which this share of the day is over."""
        return self.start + (self.end - self.start) * share


class Spent(NamedTuple):
    """A project that used up a model's daily quota."""

    project_id: int
    model_name: str
    # When it did, as a share of the day; None if unknown.
    share: float | None


class Spending(NamedTuple):
    """A model on a quota day."""

    model_name: str
    # How many projects used up their daily quota.
    projects: int
    # When the median project did, as a share of the day.
    share: float | None
    # How many more projects were needed.
    needed: int


class DayOfExhaustion(NamedTuple):
    """The exhaustion events of a quota day."""

    # By project, the one that used up its day first comes first; then by time.
    events: list[ExhaustionEvent]
    # How many projects `events` is about, of how many.
    shown: int
    projects: int
    # `events` has all events of these projects.
    is_complete: bool
    spent: list[Spent]


@dataclass(slots=True)
class _ProjectDay:
    """A project's quota day."""

    # When it first used up a daily quota; the end of the day if it did not.
    spent_at: datetime
    # When it first exceeded any quota.
    since: datetime
    events: int = 0


def day_of_exhaustion(day: QuotaDay, period: Period) -> DayOfExhaustion:
    """Return the events of a day for the model, project or key of `period`. For a key: of its project. Two queries."""
    events = _of(day, period)
    spent_at = Min("since", filter=Q(window=Window.DAY, since__gte=day.start))
    rows = events.values_list("project", "model_name").annotate(Min("since"), spent_at=spent_at, count=Count("id"))
    projects: dict[int, _ProjectDay] = {}
    spent = []
    for project_id, model_name, since, spent_since, count in rows.order_by("project", "model_name"):
        project = projects.setdefault(project_id, _ProjectDay(day.end, day.end))
        project.spent_at = min(project.spent_at, spent_since or day.end)
        project.since = min(project.since, since)
        project.events += count
        if spent_since:
            # Imports know only the day, and write its start.
            spent.append(Spent(project_id, model_name, day.share(spent_since) if spent_since > day.start else None))
    place = {project_id: number for number, project_id in enumerate(_first(projects))}
    found = events.filter(project__in=place).select_related("project", "key").order_by("since", "id")
    shown = sorted(found[:MOST_EVENTS], key=lambda event: place[event.project_id])
    is_complete = len(shown) == sum(projects[project_id].events for project_id in place)
    return DayOfExhaustion(shown, len(place), len(projects), is_complete, spent)


def _first(projects: dict[int, _ProjectDay]) -> list[int]:
    """Return the projects that used up their day first, as many as there is room for with all events; at least one."""
    order = sorted(projects, key=lambda project_id: (projects[project_id].spent_at, projects[project_id].since))
    room = MOST_EVENTS
    for number, project_id in enumerate(order[:MOST_LANES]):
        room -= projects[project_id].events
        if room < 0:
            return order[: max(number, 1)]
    return order[:MOST_LANES]


def spending(spent: Iterable[Spent]) -> list[Spending]:
    """Return the used up quotas by model, the model that needed the most projects first."""
    shares: defaultdict[str, list[float | None]] = defaultdict(list)
    for one in spent:
        shares[one.model_name].append(one.share)
    rows = []
    for model_name, all_shares in shares.items():
        known = [share for share in all_shares if share is not None]
        rows.append(Spending(model_name, len(all_shares), median_of(known), needed(known)))
    return sorted(rows, key=lambda row: (-row.needed, -row.projects, row.model_name))


def median_of(shares: Iterable[float | None]) -> float | None:
    """Return the median of the known shares; None when none is known."""
    known = [share for share in shares if share is not None]
    return median(known) if known else None


def needed(shares: Iterable[float]) -> int:
    """Return how many more projects would have been enough for the rest of the day at the same rate.

    A project whose quota was used up after a share s of the day got 1/s times the requests that it can answer, so it
    needed 1/s - 1 more projects.
    """
    least = _SHORTEST_DAY / timedelta(days=1)
    return math.ceil(round(sum(1 / max(share, least) - 1 for share in shares), 6))


def _of(day: QuotaDay, period: Period) -> Any:
    # Each condition has an index. Events that began even earlier, and were revived since, are not found.
    begins = Q(since__gte=day.start - _LONGEST_COOLDOWN, since__lt=day.end, until__gt=day.start)
    continues = Q(until=None, since__lt=day.end)
    events = ExhaustionEvent.objects.filter(begins | continues).about(period.model_name)
    events = events.exclude(key__deleted_at__lt=day.start)
    if period.project_id:
        events = events.filter(project=period.project_id)
    if period.key_id:
        events = events.filter(project__in=ApiKey.objects.filter(id=period.key_id).values("project"))
    return events
