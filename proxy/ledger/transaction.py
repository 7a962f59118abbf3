"""One transaction of the ledger: bookings first, then history, then claims."""

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, tzinfo
from typing import NamedTuple

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connections, transaction
from django.db.backends.utils import CursorWrapper

from proxy.gemini.quota_day import quota_day
from proxy.ledger.bookings import add_usage, take_back
from proxy.ledger.claims import Claim
from proxy.ledger.clock import DatabaseClock
from proxy.ledger.entries import Booking, Entry, Finished, GiveBack, PendingClaim
from proxy.ledger.history import write_history
from proxy.ledger.leases import DEAD_AFTER_SECONDS, Leases
from proxy.ledger.minute_window import adapt, after_clock_was_set
from proxy.ledger.retention import prune
from proxy.ledger.rotation import LoadedRotation, Progress
from proxy.ledger.scheduler import Scheduler
from proxy.models import LedgerWriter, Quota, lock_quotas
from proxy.models.quotas import QUOTA_LOCK

_WRITER = LedgerWriter._meta.db_table
_NUMBER_BATCH = (
    f"INSERT INTO {_WRITER} (id, batch, has_turns, committed_at) VALUES (%s, %s, %s, %s) ON CONFLICT (id) "
    "DO UPDATE SET batch = excluded.batch, has_turns = excluded.has_turns, committed_at = excluded.committed_at"
)
# The same on PostgreSQL, together with the lock and the clock: each statement costs a round trip.
_BEGIN_ON_SERVER = (
    f"WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock({QUOTA_LOCK})), "
    f"numbered AS ({_NUMBER_BATCH % ('%s', '%s', '%s', 'now()')}) "
    "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint * 1000 FROM locked"
)


class UncertainCommit(Exception):
    """The connection broke during a COMMIT, which may have taken effect."""

    def __init__(self, outcome: "Outcome") -> None:
        super().__init__("The connection broke during a COMMIT.")
        # If it has taken effect.
        self.outcome = outcome


class Outcome(NamedTuple):
    """What a batch has led to, apart from its claims that were granted."""

    # The claims that could not be granted, each with its reason.
    failed: Mapping[Entry, Exception]
    # Leased turns.
    turns: Sequence[Claim]


class LedgerTransaction:
    """Writes entries to the database, one batch at a time, and keeps the state that one batch passes to the next.

    zone: the time zone of quota days. log_days: how many days requests stay in the log; 0 turns the log off.
    """

    def __init__(self, zone: tzinfo, leases: Leases, *, log_days: float) -> None:
        self.log_days = log_days
        self._leases = leases
        self._committed_at = time.monotonic()
        self.clock = DatabaseClock()
        self._zone = zone
        self._progress = Progress()
        self._writer_id = secrets.randbits(62)
        self._batch = 0

    def write(self, entries: Sequence[Entry]) -> Outcome:
        """Commit all of `entries` or none.

        Raises UncertainCommit, and any other exception of the database when nothing was committed.
        """
        outcome: Outcome | None = None
        try:
            with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                self._begin(cursor)
                self._write_bookings([entry for entry in entries if isinstance(entry, Booking)], cursor)
                self._take_back(
                    [claim for entry in entries if isinstance(entry, GiveBack) for claim in entry.claims], cursor
                )
                if finished := [entry.request for entry in entries if isinstance(entry, Finished)]:
                    write_history(cursor, finished, has_log=self.log_days > 0)
                    prune(cursor, self.clock.moment(), self.log_days, self._zone)
                outcome = self._grant([entry for entry in entries if isinstance(entry, PendingClaim)], cursor)
        except (OperationalError, InterfaceError) as exc:
            if outcome is not None:
                raise UncertainCommit(outcome) from exc
            raise
        self._committed_at = time.monotonic()
        return outcome

    def was_committed(self) -> bool:
        """Tell whether the batch of the last UncertainCommit was committed. Raises any exception of the database."""
        with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            lock_quotas(cursor)  # the server may still be working on the COMMIT
            return LedgerWriter.objects.filter(id=self._writer_id, batch=self._batch).exists()

    def _begin(self, cursor: CursorWrapper) -> None:
        """Take the lock, read the clock, and number the batch."""
        self._batch += 1
        numbers = [self._writer_id, self._batch, self._leases.are_wanted]
        if cursor.db.vendor == "postgresql":
            cursor.execute(_BEGIN_ON_SERVER, numbers)
            [[server_ns]] = cursor.fetchall()
            self.clock.follow(int(server_ns))
        else:
            cursor.execute(_NUMBER_BATCH, [*numbers, adapt(cursor, self.clock.moment())])
        if self.clock.was_set():
            after_clock_was_set(cursor, self.clock.moment(), self.clock.now_ns())

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

    def _take_back(self, claims: Sequence[Claim], cursor: CursorWrapper) -> None:
        if claims and time.monotonic() - self._committed_at > DEAD_AFTER_SECONDS:
            Quota.objects.recount()  # others may have done so, and what is taken back now would count twice
        else:
            take_back(cursor, *claims)

    def _grant(self, entries: Sequence[PendingClaim], cursor: CursorWrapper) -> Outcome:
        """Claim a key for each entry, and lease turns for those that will follow."""
        by_rotation: defaultdict[str, list[PendingClaim]] = defaultdict(list)
        for name in self._leases.running_low():
            by_rotation[name] = []
        for entry in entries:
            by_rotation[entry.claim_request.rotation_name].append(entry)
        failed: dict[Entry, Exception] = {}
        turns: list[Claim] = []
        for rotation_name, pending in by_rotation.items():
            rotation = LoadedRotation(cursor, rotation_name, self._zone, self.clock, self._progress)
            scheduler = Scheduler(rotation)
            demand = self._leases.demand(rotation_name)
            results = scheduler.grant([entry.claim_request for entry in pending], demand)
            turns += scheduler.turns
            for entry, result in zip(pending, results, strict=True):
                if isinstance(result, Claim):
                    entry.claim = result
                else:
                    failed[entry] = result
        return Outcome(failed, turns)
