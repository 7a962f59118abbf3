"""What could have been served: an omniscient scheduler that knows every limit and window, and never gets a 429.

Among projects with room, it chooses only by what the product could know: the limits that the upstream had reported by
then. So it does not reserve a project for small requests while the token limit of that project is unknown.

Its windows repeat those of `tests/fake_gemini.py` independently, so that an error in either of them shows.
"""

import math
from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from bench.goodput_pool import Limit, projects
from tests.fake_gemini import Decision
from tests.gemini_errors import PER_DAY, PER_MINUTE, TOKENS_PER_MINUTE

PATIENCE_SECONDS = 20.0
_MINUTE = 60.0
_PACIFIC = ZoneInfo("America/Los_Angeles")


class ClaimRequest(NamedTuple):
    """A request to be served. moment: of its arrival, by `time.time()`. tokens: of its input."""

    moment: float
    model: str
    tokens: int


class _Use(NamedTuple):
    moment: float
    tokens: int

    @property
    def leaves_at(self) -> float:
        return self.moment + _MINUTE


class Quota:
    """A limit, and the past and planned requests that count against it, in order of time."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._reported: set[str] = set()
        self._uses: list[_Use] = []
        self._on_day: Counter[date] = Counter()

    def add(self, moment: float, tokens: int) -> None:
        """Serve a request at `moment`."""
        insort(self._uses, _Use(moment, tokens))
        self._on_day[_day(moment)] += 1

    def report(self, windows: Iterable[str]) -> None:
        """Note which windows a 429 reported."""
        self._reported.update(windows)

    def opening(self, tokens: int, moment: float, until: float) -> float:
        """Return the first moment from `moment` to `until` at which a request fits, or infinity."""
        first = bisect_right(self._uses, moment, key=lambda use: use.leaves_at)
        last = bisect_right(self._uses, until, key=lambda use: use.leaves_at)
        openings = [moment, *(use.leaves_at for use in self._uses[first:last])]
        return next((opening for opening in openings if self._fits(tokens, opening)), math.inf)

    def rank(self, tokens: int, moment: float) -> tuple[float, float]:
        """Return the sort key: most room for such requests first, as far as is known, then least recently used."""
        minute = self._minute(moment)
        left = [math.inf]
        if PER_MINUTE in self._reported:
            left.append(self._limit.per_minute - len(minute))
        if PER_DAY in self._reported and self._limit.per_day is not None:
            left.append(self._limit.per_day - self._on_day[_day(moment)])
        if TOKENS_PER_MINUTE in self._reported and self._limit.tokens_per_minute is not None:
            left.append((self._limit.tokens_per_minute - sum(use.tokens for use in minute)) / tokens)
        return -min(left), minute[-1].moment if minute else 0.0

    def _fits(self, tokens: int, moment: float) -> bool:
        """Tell whether a request at `moment` fits among the others, so that none is refused."""
        if self._limit.per_day is not None and self._on_day[_day(moment)] >= self._limit.per_day:
            return False
        later = self._uses[bisect_right(self._uses, moment, key=lambda use: use.moment) :]
        ends = [moment, *(use.moment for use in later if use.moment < moment + _MINUTE)]
        return all(self._fits_minute(tokens, end) for end in ends)

    def _fits_minute(self, tokens: int, end: float) -> bool:
        minute, most = self._minute(end), self._limit.tokens_per_minute
        if len(minute) >= self._limit.per_minute:
            return False
        return most is None or not minute or sum(use.tokens for use in minute) + tokens <= most

    def _minute(self, end: float) -> list[_Use]:
        first = bisect_right(self._uses, end, key=lambda use: use.leaves_at)
        return self._uses[first : bisect_right(self._uses, end, key=lambda use: use.moment)]


def serve(requests: Iterable[ClaimRequest], past: Iterable[Decision]) -> list[float]:
    """Return when each request is served, first come, first served: as early as possible, or infinity if never.

    past: the upstream's earlier decisions. Among projects with room, the one with the most room is used, as far as its
    limits have been reported; among equals, the least recently used.
    """
    quotas = _quotas(past)
    return [_serve(request, quotas[request.model]) for request in requests]


def _serve(request: ClaimRequest, quotas: list[Quota]) -> float:
    until = request.moment + PATIENCE_SECONDS
    openings = [quota.opening(request.tokens, request.moment, until) for quota in quotas]
    first = min(openings)
    if first < math.inf:
        open_ones = [quota for quota, opening in zip(quotas, openings, strict=True) if opening == first]
        min(open_ones, key=lambda quota: quota.rank(request.tokens, first)).add(first, request.tokens)
    return first


def _quotas(past: Iterable[Decision]) -> dict[str, list[Quota]]:
    """Return the quotas of all projects by model, as they stand after `past`."""
    by_name = {(project.name, model): Quota(limit) for project in projects() for model, limit in project.limits.items()}
    for decision in past:
        quota = by_name[decision.project, decision.model]
        quota.report(decision.violated)
        if decision.is_accepted:
            quota.add(decision.moment, decision.tokens)
    by_model = defaultdict(list)
    for (_, model), quota in by_name.items():
        by_model[model].append(quota)
    return by_model


def _day(moment: float) -> date:
    return datetime.fromtimestamp(moment, _PACIFIC).date()
