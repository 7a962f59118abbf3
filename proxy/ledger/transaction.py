"""One transaction of the ledger: bookings first, then history, then claims."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, tzinfo

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.utils import CursorWrapper

from proxy.gemini.quota_day import quota_day
from proxy.ledger.bookings import add_usage
from proxy.ledger.claims import Claim
from proxy.ledger.clock import ClockWatch
from proxy.ledger.entries import Booking, Entry, Finished, PendingClaim
from proxy.ledger.history import write_history
from proxy.ledger.minute_window import after_clock_was_set
from proxy.ledger.retention import prune
from proxy.ledger.rotation import LoadedRotation, Progress
from proxy.ledger.scheduler import Scheduler
from proxy.models import lock_quotas


class LedgerTransaction:
    """Writes entries to the database, one batch at a time, and keeps the state that one batch passes to the next.

    zone: the time zone of quota days. log_days: how many days requests stay in the log; 0 turns the log off.
    """

    def __init__(self, zone: tzinfo, *, log_days: float) -> None:
        self.log_days = log_days
        self._zone = zone
        self._clock = ClockWatch()
        self._progress = Progress()

    def write(self, entries: Sequence[Entry]) -> dict[Entry, Exception]:
        """Commit all of `entries` or none; return the claims that cannot be granted, each with its reason.

        Raises any exception of the database.
        """
        with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            lock_quotas(cursor)
            if self._clock.was_set():
                after_clock_was_set(cursor, datetime.now(UTC))
            self._write_bookings([entry for entry in entries if isinstance(entry, Booking)], cursor)
            if finished := [entry.request for entry in entries if isinstance(entry, Finished)]:
                write_history(cursor, finished, has_log=self.log_days > 0)
                prune(cursor, datetime.now(UTC), self.log_days, self._zone)
            return self._grant([entry for entry in entries if isinstance(entry, PendingClaim)], cursor)

    def _write_bookings(self, bookings: Sequence[Booking], cursor: CursorWrapper) -> None:
        counts: defaultdict[tuple[int, str, date], Counter[str]] = defaultdict(Counter)
        for booking in bookings:
            if booking.counts:
                row = (booking.claim.key_id, booking.claim.counted_name, quota_day(booking.moment, self._zone))
                counts[row].update(booking.counts)
        if counts:
            add_usage(cursor, counts)
        for effect in (booking.effect for booking in bookings if booking.effect):
            effect(cursor)

    def _grant(self, entries: Sequence[PendingClaim], cursor: CursorWrapper) -> dict[Entry, Exception]:
        """Claim a key for each entry; return the entries without one, each with its reason."""
        by_rotation: defaultdict[str, list[PendingClaim]] = defaultdict(list)
        for entry in entries:
            by_rotation[entry.claim_request.rotation_name].append(entry)
        failed: dict[Entry, Exception] = {}
        for rotation_name, pending in by_rotation.items():
            rotation = LoadedRotation(cursor, rotation_name, self._zone, self._progress)
            results = Scheduler(rotation).grant([entry.claim_request for entry in pending])
            for entry, result in zip(pending, results, strict=True):
                if isinstance(result, Claim):
                    entry.claim = result
                else:
                    failed[entry] = result
        return failed
