"""The clocks of the ledger, which all processes and nodes share.

Quota days and cooldowns follow the wall clock, which people and NTP can set. The sliding minute uses nanoseconds that
no change of the wall clock makes longer or shorter. On SQLite, both are clocks of this machine: the wall clock, and the
time since boot. On PostgreSQL, both are the server's clock, which is read with the lock of each transaction and carried
on by this machine's time since boot. So a node may have a wrong clock.
"""

import time
from datetime import UTC, datetime

SECOND = 1_000_000_000  # nanoseconds
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # on Linux, includes the time asleep


def elapsed_ns() -> int:
    """Return the nanoseconds since this machine booted. All its processes share this clock."""
    return time.clock_gettime_ns(_SINCE_BOOT)


class DatabaseClock:
    """The clock of the database."""

    def __init__(self) -> None:
        # How far a server's clock is ahead of `elapsed_ns`; 0 until one is read.
        self._ahead_ns = 0
        self._looks_slow = False
        self._offset_ns: int | None = None

    def follow(self, server_ns: int) -> None:
        """Follow the clock of a server, which has just returned `server_ns`, in nanoseconds since 1970.

        A result that is read late makes the clock look slow, so that is believed only the second time.
        """
        ahead_ns = server_ns - elapsed_ns()
        self._looks_slow = bool(self._ahead_ns) and not self._looks_slow and ahead_ns < self._ahead_ns - SECOND
        if not self._looks_slow:
            self._ahead_ns = ahead_ns

    def now_ns(self) -> int:
        """Return the time by the clock of `Use`, in nanoseconds."""
        return elapsed_ns() + self._ahead_ns

    def moment(self) -> datetime:
        """Return the date and time."""
        return datetime.fromtimestamp(self.now_ns() / SECOND, UTC) if self._ahead_ns else datetime.now(UTC)

    def was_set(self) -> bool:
        """Tell whether the wall clock was set by over a second since the last call. The first call returns True."""
        offset_ns = self._ahead_ns or time.time_ns() - elapsed_ns()
        before, self._offset_ns = self._offset_ns, offset_ns
        return before is None or abs(offset_ns - before) > SECOND
