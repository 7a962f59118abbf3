"""Lines of requests that wait for a key: one per model; first come, first served. No Django."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

# Other processes free keys without notice, so a line is checked at least this often.
_CHECK_EVERY_SECONDS = 0.5
# Lines for the same model in other processes get a head start, by the time that the first in line can still wait.
_DELAY_PER_SECOND, _LONGEST_DELAY_SECONDS = 0.003, 0.06
# How many requests of a line are taken at once. When they are not served, neither are those behind them.
_AT_ONCE = 64


class Waiting(Protocol):
    """What can wait in a line."""

    @property
    def gives_up_at(self) -> float:
        """When it stops waiting, in seconds of the clock that `WaitingLines` is called with."""
        ...


_T = TypeVar("_T", bound=Waiting)


class _Line(Generic[_T]):
    def __init__(self) -> None:
        self.waiting: deque[_T] = deque()
        # When a key becomes available, as far as is known.
        self.opens_at = 0.0
        # When the line is checked next.
        self.due_at = 0.0


class WaitingLines(Generic[_T]):
    """All lines, by name, and when to check them. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[_T]] = {}

    def __len__(self) -> int:
        return sum(len(line.waiting) for line in self._lines.values())

    def opens_at(self, name: str) -> float | None:
        """Return when a key becomes available, as far as is known; None when the line is empty."""
        return self._lines[name].opens_at if name in self._lines else None

    def join(self, name: str, newcomer: _T) -> None:
        """Add a newcomer at the end of a line that is not empty."""
        self._lines[name].waiting.append(newcomer)

    def wait(self, name: str, first: Sequence[_T], opens_at: float, now: float, newcomers: Sequence[_T] = ()) -> None:
        """Put `first`, in order, at the front of a line until `opens_at`, and newcomers at its end."""
        line = self._lines.setdefault(name, _Line())
        line.waiting.extendleft(reversed(first))
        line.waiting.extend(newcomers)
        line.opens_at = opens_at
        # Among the lines of several processes, the one whose first request has waited longest is checked first.
        remaining = line.waiting[0].gives_up_at - now
        delay = min(max(0.0, remaining * _DELAY_PER_SECOND), _LONGEST_DELAY_SECONDS)
        # Sooner when a request stops waiting.
        line.due_at = min(opens_at + delay, now + _CHECK_EVERY_SECONDS, *(one.gives_up_at for one in line.waiting))

    def check_soon(self, name: str) -> None:
        """Check a line as soon as possible, since a key may have become available."""
        if line := self._lines.get(name):
            line.due_at = 0.0

    def seconds_to_next(self, now: float) -> float | None:
        """Return how many seconds no line needs a check; None when all lines are empty."""
        return max(0.0, min(line.due_at for line in self._lines.values()) - now) if self._lines else None

    def take_due(self, now: float) -> list[_T]:
        """Remove and return, in order, the requests that can be served now or stop waiting."""
        return [one for name, line in list(self._lines.items()) if line.due_at <= now for one in self._take(name, now)]

    def take_all(self) -> list[_T]:
        """Remove and return all requests."""
        everything = [one for line in self._lines.values() for one in line.waiting]
        self._lines.clear()
        return everything

    def _take(self, name: str, now: float) -> list[_T]:
        line = self._lines[name]
        taken = [line.waiting.popleft() for _ in range(min(_AT_ONCE, len(line.waiting)))]
        taken += [one for one in line.waiting if one.gives_up_at <= now]
        line.waiting = deque(one for one in line.waiting if one.gives_up_at > now)
        if not line.waiting:
            del self._lines[name]
        return taken
