"""The lines in which requests wait until a key comes back: one for each model, first come first served. No Django."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

# What happens in another process tells nobody here: so often somebody looks.
_LOOK_EVERY_SECONDS = 0.5
# For each second that the first in line can still wait, it leaves those of other processes a head start.
_LATER_FOR_EACH_SECOND, _LATEST_SECONDS = 0.003, 0.06
# So many of a line are looked at at once: when they are not served, those behind them are not either.
_AT_ONCE = 64


class Waiting(Protocol):
    """Somebody who waits. gives_up_at: until when, by the clock of `WaitingLines`."""

    @property
    def gives_up_at(self) -> float: ...


_T = TypeVar("_T", bound=Waiting)


class _Line(Generic[_T]):
    """opens_at: when the first is served, as far as is known; looks_at: when somebody looks."""

    def __init__(self) -> None:
        self.who: deque[_T] = deque()
        self.opens_at = self.looks_at = 0.0


class WaitingLines(Generic[_T]):
    """Who waits for what, and when to look again; times are seconds of a clock that nobody sets."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[_T]] = {}

    def __len__(self) -> int:
        return sum(len(line.who) for line in self._lines.values())

    def opens_at(self, name: str) -> float | None:
        """Return when the first in line is served, as far as is known; None when nobody waits."""
        return self._lines[name].opens_at if name in self._lines else None

    def join(self, name: str, who: _T) -> None:
        """Stand at the end of a line."""
        self._lines[name].who.append(who)

    def wait(self, name: str, those: Sequence[_T], opens_at: float, now: float, newcomers: Sequence[_T] = ()) -> None:
        """Let `those` stand, in their order, at the front of a line until `opens_at`, and newcomers at its end.

        Begins a line if there is none.
        """
        line = self._lines.setdefault(name, _Line())
        line.who.extendleft(reversed(those))
        line.who.extend(newcomers)
        line.opens_at = opens_at
        # Whose first has waited longer looks sooner, also where lines for the same stand in several processes.
        head_start = min(max(0.0, (line.who[0].gives_up_at - now) * _LATER_FOR_EACH_SECOND), _LATEST_SECONDS)
        # Sooner when somebody can wait no longer.
        line.looks_at = min(opens_at + head_start, now + _LOOK_EVERY_SECONDS, *(who.gives_up_at for who in line.who))

    def look_soon(self, name: str) -> None:
        """Look at a line at once: something happened that may serve it."""
        if line := self._lines.get(name):
            line.looks_at = 0.0

    def seconds_to_next(self, now: float) -> float | None:
        """Return for how long nobody needs to look; None when nobody waits."""
        return max(0.0, min(line.looks_at for line in self._lines.values()) - now) if self._lines else None

    def take_due(self, now: float) -> list[_T]:
        """Return, in order, who is to be served now, or can wait no longer; they wait no more, unless again."""
        return [
            who for name, line in list(self._lines.items()) if line.looks_at <= now for who in self._take(name, now)
        ]

    def take_all(self) -> list[_T]:
        """Return everybody; nobody waits any more."""
        everybody = [who for line in self._lines.values() for who in line.who]
        self._lines.clear()
        return everybody

    def _take(self, name: str, now: float) -> list[_T]:
        line = self._lines[name]
        taken = [line.who.popleft() for _ in range(min(_AT_ONCE, len(line.who)))]
        taken += [who for who in line.who if who.gives_up_at <= now]
        line.who = deque(who for who in line.who if who.gives_up_at > now)
        if not line.who:
            del self._lines[name]
        return taken
