"""The two clocks of the ledger. Days and rests are told by the wall clock, which people and NTP may set; the sliding
minute is measured by one that nobody can set, so that no step of the clock makes a window longer or shorter."""

import time

SECOND = 1_000_000_000  # nanoseconds
_SINCE_START = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux's goes on while the machine sleeps


def elapsed_ns() -> int:
    """Return the nanoseconds since this machine was started: one clock for all of its processes."""
    return time.clock_gettime_ns(_SINCE_START)


class ClockWatch:
    """Notices when the wall clock was set."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def was_set(self) -> bool:
        """Tell whether the clock was set by more than a second since the last call; the first call cannot know."""
        offset_ns = time.time_ns() - elapsed_ns()
        before, self._offset_ns = self._offset_ns, offset_ns
        return before is None or abs(offset_ns - before) > SECOND
