"""What ran out on a quota day, when, and how many more projects would have lasted."""

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
MOST_RESTS = 300
# Who is refused sooner than so after midnight met yesterday's quota, since clocks differ: no such rate was asked for.
_SHORTEST_DAY = timedelta(minutes=1)
_LONGEST_REST = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class QuotaDay:
    """A quota day and its bounds, UTC; `end` not included. It has 23 or 25 hours when clocks change."""

    day: date
    start: datetime
    end: datetime

    @classmethod
    def of(cls, day: date, zone: tzinfo) -> "QuotaDay":
        return cls(day, day_start(day, zone), day_start(day + timedelta(days=1), zone))

    def share(self, moment: datetime) -> float:
        """Return how much of the day is over at `moment`: 0 before it, 1 after it."""
        return min(max((moment - self.start) / (self.end - self.start), 0.0), 1.0)

    def moment(self, share: float) -> datetime:
        """Return the moment at which such a share of the day is over."""
        return self.start + (self.end - self.start) * share


class Spent(NamedTuple):
    """A project that ran out of a day's quota of a model. share: of the day, when it did; None: not known."""

    project_id: int
    model_name: str
    share: float | None


class Spending(NamedTuple):
    """A model on a day. projects: that ran out; share: of the day, when the median one did; needed: more projects."""

    model_name: str
    projects: int
    share: float | None
    needed: int


class DayOfRests(NamedTuple):
    """rests: by project, those first that ran out first, then by time; as many projects as there is room for.

    shown, projects: how many projects these are, of how many; is_whole: all rests of these projects are there.
    """

    rests: list[ExhaustionEvent]
    shown: int
    projects: int
    is_whole: bool
    spent: list[Spent]


@dataclass(slots=True)
class _Resting:
    """When a project first ran out of a day's quota (the end of the day if it did not), and of anything; how often."""

    spent_at: datetime
    since: datetime
    rests: int = 0


def day_of_rests(day: QuotaDay, period: Period) -> DayOfRests:
    """Return who rested on a day, of what `period` is about (not when); two queries.

    Of a key: what its project ran out of.
    """
    events = _of(day, period)
    spent_at = Min("since", filter=Q(window=Window.DAY, since__gte=day.start))
    rows = events.values_list("project", "model_name").annotate(Min("since"), spent_at=spent_at, rests=Count("id"))
    projects: dict[int, _Resting] = {}
    spent = []
    for project_id, model_name, since, spent_since, rests in rows.order_by("project", "model_name"):
        resting = projects.setdefault(project_id, _Resting(day.end, day.end))
        resting.spent_at = min(resting.spent_at, spent_since or day.end)
        resting.since = min(resting.since, since)
        resting.rests += rests
        if spent_since:
            # Imports know the day alone, and write its beginning.
            spent.append(Spent(project_id, model_name, day.share(spent_since) if spent_since > day.start else None))
    place = {project_id: number for number, project_id in enumerate(_first(projects))}
    found = events.filter(project__in=place).select_related("project", "key").order_by("since", "id")
    shown = sorted(found[:MOST_RESTS], key=lambda event: place[event.project_id])
    is_whole = len(shown) == sum(projects[project_id].rests for project_id in place)
    return DayOfRests(shown, len(place), len(projects), is_whole, spent)


def _first(projects: dict[int, _Resting]) -> list[int]:
    """Return those that ran out first, as far as there is room for all their rests; at least one."""
    order = sorted(projects, key=lambda project_id: (projects[project_id].spent_at, projects[project_id].since))
    room = MOST_RESTS
    for number, project_id in enumerate(order[:MOST_LANES]):
        room -= projects[project_id].rests
        if room < 0:
            return order[: max(number, 1)]
    return order[:MOST_LANES]


def spending(spent: Iterable[Spent]) -> list[Spending]:
    """Return what ran out, model by model; most needed first."""
    shares: defaultdict[str, list[float | None]] = defaultdict(list)
    for one in spent:
        shares[one.model_name].append(one.share)
    rows = []
    for model_name, all_shares in shares.items():
        known = [share for share in all_shares if share is not None]
        rows.append(Spending(model_name, len(all_shares), median_of(known), needed(known)))
    return sorted(rows, key=lambda row: (-row.needed, -row.projects, row.model_name))


def median_of(shares: Iterable[float | None]) -> float | None:
    """Return the median of those that are known; None when none is."""
    known = [share for share in shares if share is not None]
    return median(known) if known else None


def needed(shares: Iterable[float]) -> int:
    """Return how many more projects would have served the rest of the day at the same rate.

    One that ran out after a share s of the day was asked for 1/s of what it may answer: 1/s - 1 more are needed for it.
    """
    least = _SHORTEST_DAY / timedelta(days=1)
    return math.ceil(round(sum(1 / max(share, least) - 1 for share in shares), 6))


def _of(day: QuotaDay, period: Period) -> Any:
    # Each by an index of its own. Who rested for longer before the day, and was revived since, is found by none.
    begins = Q(since__gte=day.start - _LONGEST_REST, since__lt=day.end, until__gt=day.start)
    goes_on = Q(until=None, since__lt=day.end)
    events = ExhaustionEvent.objects.filter(begins | goes_on).about(period.model_name)
    events = events.exclude(key__deleted_at__lt=day.start)
    if period.project_id:
        events = events.filter(project=period.project_id)
    if period.key_id:
        events = events.filter(project__in=ApiKey.objects.filter(id=period.key_id).values("project"))
    return events
