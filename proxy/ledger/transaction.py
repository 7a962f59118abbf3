"""One transaction of the ledger: bookings first, then history, then claims."""

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, tzinfo
from typing import Any, NamedTuple, Self

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connections, transaction
from django.db.backends.utils import CursorWrapper

from proxy.gemini.quota_day import quota_day
from proxy.ledger.bookings import add_usage, prove, take_back
from proxy.ledger.claims import Claim, SeveralProjects, UnknownResource, UnknownUpload
from proxy.ledger.clock import DatabaseClock
from proxy.ledger.entries import Booking, Entry, Finished, GiveBack, PendingClaim, Probe
from proxy.ledger.history import write_history
from proxy.ledger.leases import DEAD_AFTER_SECONDS, Leases
from proxy.ledger.minute_window import adapt, after_clock_was_set, correct
from proxy.ledger.owners import with_owner
from proxy.ledger.retention import prune
from proxy.ledger.rotation import LoadedRotation, Progress
from proxy.ledger.scheduler import Scheduler
from proxy.ledger.silent_nodes import end_silent_holder
from proxy.models import LedgerWriter, Quota
from proxy.models.quotas import QUOTA_LOCK

_WRITER = LedgerWriter._meta.db_table
_BEGIN_WRITER = f"INSERT INTO {_WRITER} (id, batch, has_turns, committed_at) VALUES (%s, %s, %s, %s)"
_NUMBER_BATCH = (
    f"{_BEGIN_WRITER} ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, has_turns = excluded.has_turns, "
    "committed_at = excluded.committed_at"
)
_LAST_BATCH = f"{_BEGIN_WRITER} ON CONFLICT (id) DO UPDATE SET batch = {_WRITER}.batch RETURNING batch"
# On PostgreSQL, the lock and the clock take one round trip.
_LOCK = (
    f"WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock({QUOTA_LOCK})) "
    "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint * 1000 FROM locked"
)
_PRUNE_EVERY_SECONDS = 1


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
        # Bookings that prove room or correct tokens, for the next transaction with the lock. No limit depends on them.
        self._learned: list[Booking] = []
        self.clock = DatabaseClock()
        self._zone = zone
        self._progress = Progress()
        # By `time.monotonic()`.
        self._prunes_at = 0.0
        self._writer_id = secrets.randbits(62)
        self._batch = 0

    def write(self, entries: Sequence[Entry]) -> Outcome:
        """Commit all of `entries` or none.

        Raises UncertainCommit, and any other exception of the database when nothing was committed.
        """
        bookings = [entry for entry in entries if isinstance(entry, Booking)]
        effects = [booking.effect for booking in bookings if booking.effect]
        unused = [claim for entry in entries if isinstance(entry, GiveBack) for claim in entry.claims]
        finished = [entry.request for entry in entries if isinstance(entry, Finished)]
        pending = [entry for entry in entries if isinstance(entry, PendingClaim)]
        running_low = self._leases.running_low()
        is_pruning = bool(finished) and time.monotonic() >= self._prunes_at
        # Counts and history are added to rows in a fixed order, which needs no lock.
        needs_lock = bool(pending or running_low or unused or effects or is_pruning)
        needs_lock |= any(isinstance(entry, Probe) for entry in entries)
        needs_lock |= any(booking.corrects and booking.claim.has_token_limit for booking in bookings)
        learned = [booking for booking in bookings if booking.proves or booking.corrects]
        outcome: Outcome | None = None
        try:
            with (
                transaction.atomic(),
                connections[DEFAULT_DB_ALIAS].cursor() as cursor,
                _Pipeline(cursor) as pipeline,
            ):
                self._number_batch(cursor)
                self._write_counts(bookings, cursor)
                write_history(cursor, finished, has_log=self.log_days > 0)
                if needs_lock:
                    self._lock(cursor)
                    if self.clock.was_set():
                        with pipeline.paused():
                            after_clock_was_set(cursor, self.clock.moment(), self.clock.now_ns())
                    self._learn([*self._learned, *learned], cursor)
                if effects:
                    with pipeline.paused():
                        for effect in effects:
                            effect(cursor)
                self._take_back(unused, cursor)
                if is_pruning:
                    prune(cursor, self.clock.moment(), self.log_days, self._zone)
                    self._prunes_at = time.monotonic() + _PRUNE_EVERY_SECONDS
                outcome = self._grant(pending, running_low, cursor)
        except (OperationalError, InterfaceError) as exc:
            end_silent_holder(exc)
            if outcome is not None:
                self._learned = []  # otherwise it might be learned twice
                raise UncertainCommit(outcome) from exc
            raise
        self._committed_at = time.monotonic()
        self._learned = [] if needs_lock else [*self._learned, *learned]
        return outcome

    def was_committed(self) -> bool:
        """Tell whether the batch of the last UncertainCommit was committed. Raises any exception of the database."""
        with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            moment = adapt(cursor, self.clock.moment())
            # Writes, and so waits for a server that is still working on the COMMIT.
            cursor.execute(_LAST_BATCH, [self._writer_id, 0, False, moment])
            return bool(cursor.fetchall() == [(self._batch,)])

    def _number_batch(self, cursor: CursorWrapper) -> None:
        self._batch += 1
        moment = adapt(cursor, self.clock.moment())
        cursor.execute(_NUMBER_BATCH, [self._writer_id, self._batch, self._leases.are_wanted, moment])

    def _lock(self, cursor: CursorWrapper) -> None:
        """Lock the quotas, and read the clock. On SQLite, BEGIN IMMEDIATE has locked everything."""
        if cursor.db.vendor == "postgresql":
            cursor.execute(_LOCK)
            [[server_ns]] = cursor.fetchall()
            self.clock.follow(int(server_ns))

    def _write_counts(self, bookings: Sequence[Booking], cursor: CursorWrapper) -> None:
        counts: defaultdict[tuple[int, str, date], Counter[str]] = defaultdict(Counter)
        for booking in bookings:
            if booking.counts:
                row = (booking.claim.key_id, booking.claim.counted_name, quota_day(booking.moment, self._zone))
                counts[row].update(booking.counts)
        add_usage(cursor, counts)

    def _learn(self, bookings: Sequence[Booking], cursor: CursorWrapper) -> None:
        prove(cursor, [booking.claim for booking in bookings if booking.proves])
        correct(cursor, [(b.claim.quota_id, b.claim.tenth, b.corrects) for b in bookings if b.corrects])

    def _take_back(self, claims: Sequence[Claim], cursor: CursorWrapper) -> None:
        if claims and time.monotonic() - self._committed_at > DEAD_AFTER_SECONDS:
            Quota.objects.recount()  # others may have done so, and what is taken back now would count twice
        else:
            take_back(cursor, *claims)

    def _grant(self, entries: Sequence[PendingClaim], running_low: Sequence[str], cursor: CursorWrapper) -> Outcome:
        """Claim a key for each entry, and lease turns for those that will follow."""
        by_rotation: defaultdict[str, list[PendingClaim]] = defaultdict(list)
        failed: dict[Entry, Exception] = {}
        for name in running_low:
            by_rotation[name] = []
        for entry in entries:
            if entry.claim_request.needs_lookup:
                try:
                    entry.claim_request = with_owner(entry.claim_request, self.clock.moment())
                except (UnknownResource, UnknownUpload, SeveralProjects) as exc:
                    failed[entry] = exc
                    continue
            by_rotation[entry.claim_request.rotation_name].append(entry)
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


class _Pipeline:
    """Sends the statements of a transaction without waiting for their results, each of which costs a round trip.

    Statements whose results are read wait, of course. Only on PostgreSQL.
    """

    def __init__(self, cursor: CursorWrapper) -> None:
        self._database = cursor.db
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._database.vendor == "postgresql":
            self._stack.enter_context(self._database.wrap_database_errors)  # errors may show only at the end
            self._stack.enter_context(self._database.connection.pipeline())
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.__exit__(*exc_info)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wait for each result, as the ORM expects."""
        self._stack.close()
        yield
        self.__enter__()
