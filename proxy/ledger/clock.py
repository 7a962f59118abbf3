"""The two clocks of the ledger.

Quota days and cooldowns follow the wall clock, which people and NTP can set. The sliding minute uses the time since
boot, so that setting the wall clock never makes a window longer or shorter. On PostgreSQL, the nodes need a common
clock for it: that of the server, see `minute_window.py`.
"""

import time

SECOND = 1_000_000_000  # nanoseconds
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # on Linux, includes the time asleep


def elapsed_ns() -> int:
    """Return the nanoseconds since this machine booted. All its processes share this clock."""
    return time.clock_gettime_ns(_SINCE_BOOT)


class ClockWatch:
    """Detects that the wall clock was set."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def was_set(self) -> bool:
        """Tell whether the clock was set by more than a second since the last call. The first call returns True."""
        offset_ns = time.time_ns() - elapsed_ns()
        before, self._offset_ns = self._offset_ns, offset_ns
        return before is None or abs(offset_ns - before) > SECOND
