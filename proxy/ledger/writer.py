"""The ledger's writer thread: it takes entries from a queue and commits them in batches (group commit).

All entries in the queue go into one short transaction, and their callers wake up once it is committed. A single request
pays for a small transaction of its own; the busier the service, the cheaper each claim.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import cast

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from proxy.ledger.claims import Claim, ClaimRequest, PoolExhausted
from proxy.ledger.entries import Booking, Entry, Finished, GiveBack, PendingClaim
from proxy.ledger.leases import Leases
from proxy.ledger.transaction import LedgerTransaction, Outcome, UncertainCommit
from proxy.ledger.waiting_line import WaitingLines

logger = logging.getLogger(__name__)

_LARGEST_BATCH = 256
# How long a claim or an answer waits for a database that cannot be written to.
DATABASE_SECONDS = 10
_TRY_AGAIN_SECONDS = 0.5
# An entry that is not urgent waits this long for another one to be written with, so that it does not delay the next
# claim of a single client.
_LATER_SECONDS = 0.005
# Nobody needs the history at once, and it costs least when many requests are written together.
_HISTORY_EVERY_SECONDS = 0.25


class LedgerUnavailable(Exception):
    """The database did not accept a claim or booking in time. A booking is kept and retried; a claim is dropped."""


class Writer:
    """The queue, and the thread that empties it, which starts with the first entry. Safe to share between threads."""

    def __init__(self, transaction: LedgerTransaction, leases: Leases, *, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self.database_seconds: float = DATABASE_SECONDS
        self._transaction = transaction
        self._leases = leases
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._unsaved: list[Entry] = []
        # The batch of an UncertainCommit, and what it has led to if it was committed.
        self._uncertain: tuple[list[Entry], Outcome] | None = None
        # Since when the database accepts nothing, and when to try again, by `time.monotonic()`.
        self._failing_since: float | None = None
        self._try_again_at = 0.0
        self._waiting: WaitingLines[PendingClaim] = WaitingLines()
        self._finished: list[Entry] = []
        self._writes_history_at = 0.0
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def queued(self) -> int:
        """How many entries are in the queue; approximate, since other threads use the queue at the same time."""
        return self._queue.qsize()

    @property
    def waiting(self) -> int:
        """How many requests are waiting for a key."""
        return len(self._waiting)

    def put(self, entry: Entry) -> None:
        """Add an entry to the queue. Does not wait."""
        if self._thread is None:
            with self._start_lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
                    self._thread.start()
        self._queue.put(entry)

    def take_turn(self, claim_request: ClaimRequest) -> Claim | None:
        """Return a leased turn for the request, if there is one and nobody has been waiting for longer."""
        turn = self._leases.take(claim_request)
        if turn and self._waiting.opens_at(claim_request.rotation_name) is not None:
            self.put(GiveBack([turn]))
            return None
        return turn

    def return_turns(self, is_concerned: Callable[[Claim], bool]) -> None:
        """Give back the leased turns that should not be taken any more. Does not wait."""
        if self._leases and (turns := self._leases.remove(is_concerned)):
            self.put(GiveBack(turns))

    def close(self, timeout_seconds: float) -> None:
        """Write what is left in the queue and stop the thread; the next entry starts a new one."""
        with self._start_lock:
            if self._thread is not None:
                self._queue.put(None)
                self._thread.join(timeout_seconds)
                self._thread = None

    def _run(self) -> None:
        """Commit batch after batch until told to stop."""
        is_last = False
        while not is_last:
            batch = self._next_batch()
            is_last = None in batch
            kept = [entry for entry in self._unsaved if not (isinstance(entry, PendingClaim) and entry.is_abandoned)]
            turns = self._leases.clear() if is_last else self._leases.remove_expired()
            new = [*filter(None, batch), *([GiveBack(turns)] if turns else [])]
            entries, self._unsaved = [*kept, *self._arrange(new, is_last=is_last)], []
            if entries:
                self._commit(entries)
        for pending in self._waiting.take_all():
            pending.complete(LedgerUnavailable("The service is shutting down."))
        give_up_at = time.monotonic() + self.database_seconds
        while self._unsaved:
            entries, self._unsaved = self._unsaved, []
            self._commit(entries)
            if self._unsaved and time.monotonic() > give_up_at:
                logger.error("The database accepts nothing: %d entries are lost.", len(self._unsaved))
                break
            time.sleep(_TRY_AGAIN_SECONDS if self._unsaved else 0)
        connection.close()

    def _next_batch(self) -> list[Entry | None]:
        """Return the next batch; None in it means that the writer must stop."""
        batch: list[Entry | None] = []
        with suppress(queue.Empty):
            batch.append(self._queue.get(timeout=self._patience()))
            write_at = time.monotonic() + _LATER_SECONDS
            while (entry := batch[-1]) and not entry.is_urgent and len(batch) < _LARGEST_BATCH:
                batch.append(self._queue.get(timeout=max(0.0, write_at - time.monotonic())))
            time.sleep(0)  # under gevent, lets other greenlets add to this batch
            while len(batch) < _LARGEST_BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    def _patience(self) -> float | None:
        """Return how many seconds to wait for new entries; None waits until there is one."""
        # Entries that could not be written are retried soon, even without new ones.
        times = [max(0.0, self._try_again_at - time.monotonic())] if self._unsaved else []
        if (seconds := self._waiting.seconds_to_next(time.monotonic())) is not None:
            times.append(seconds)
        if (seconds := self._leases.seconds_to_expiry()) is not None:
            times.append(seconds)
        if self._finished:
            times.append(max(0.0, self._writes_history_at - time.monotonic()))
        return min(times, default=None)

    def _arrange(self, entries: Iterable[Entry], *, is_last: bool) -> list[Entry]:
        """Return the entries to write now: new claims queue behind waiting ones, and history is written in bulk."""
        arranged: list[Entry] = []
        now = time.monotonic()
        for entry in entries:
            if isinstance(entry, PendingClaim):
                name = entry.claim_request.line
                opens_at = None if entry.claim_request.needs_project else self._waiting.opens_at(name)
                if opens_at and opens_at <= entry.gives_up_at and len(self._waiting) < self.most_waiting:
                    entry.begin_to_wait()
                    self._waiting.join(name, entry)
                    continue
            elif isinstance(entry, Booking) and entry.effect:
                self._waiting.check_soon(entry.claim.model_name)
            elif isinstance(entry, GiveBack):
                for claim in entry.claims:
                    self._waiting.check_soon(claim.model_name)
            elif isinstance(entry, Finished):
                if not self._finished:
                    self._writes_history_at = now + _HISTORY_EVERY_SECONDS
                self._finished.append(entry)
                continue
            arranged.append(entry)
        if self._finished and (is_last or now >= self._writes_history_at):
            arranged += self._finished
            self._finished = []
        due = self._waiting.take_due(now)
        return [*(pending for pending in due if not pending.is_abandoned), *arranged]

    def _commit(self, entries: list[Entry]) -> None:
        """Commit all of `entries` or none, and complete them; keep them if the database accepts nothing."""
        try:
            entries = self._settle(entries)
            outcome = self._transaction.write(entries)
        except UncertainCommit as exc:
            self._uncertain = entries, exc.outcome
            self._keep(entries, exc)
        except (OperationalError, InterfaceError) as exc:
            self._keep(entries, exc)
        except Exception:
            if len(entries) > 1:  # one of them is faulty: write each on its own to find out which
                for entry in entries:
                    self._commit([entry])
                return
            logger.exception("The ledger could not write an entry.")
            self._complete(entries, Outcome({entries[0]: LedgerUnavailable("The database refused the entry.")}, ()))
        else:
            if self._failing_since is not None:
                logger.warning("The database accepts entries again.")
                self._failing_since = None
            self._complete(entries, outcome)

    def _settle(self, entries: list[Entry]) -> list[Entry]:
        """Find out what became of the batch of an UncertainCommit; return the entries that are still to be written."""
        if self._uncertain is None:
            return entries
        batch, outcome = self._uncertain
        if self._transaction.was_committed():
            self._complete(batch, outcome)
            written = set(batch)
            entries = [entry for entry in entries if entry not in written]
            self._unsaved = [entry for entry in self._unsaved if entry not in written]
        self._uncertain = None
        return entries

    def _keep(self, entries: list[Entry], error: Exception) -> None:
        """Keep `entries` for the next attempt, but tell the callers who have waited long enough."""
        with suppress(DatabaseError):  # if the thread died here, every caller would wait forever
            connection.close()
        now = time.monotonic()
        if self._failing_since is None:
            logger.error("The database does not accept entries: %s", error)
            self._failing_since = self._try_again_at = now  # at once: often only the connection was lost
        else:
            self._try_again_at = now + _TRY_AGAIN_SECONDS
        for entry in entries:
            give_up_at = max(entry.put_at, self._failing_since) + self.database_seconds
            if isinstance(entry, PendingClaim):
                give_up_at = min(give_up_at, entry.claim_request.deadline)
            if now >= give_up_at and not entry.is_complete:
                entry.complete(LedgerUnavailable("The database is locked or cannot be reached."))
            if not entry.is_complete or isinstance(entry, Booking | Finished | GiveBack):
                self._unsaved.append(entry)

    def _complete(self, entries: list[Entry], outcome: Outcome) -> None:
        """Wake the callers of `entries`; claims that can wait for a key join the waiting line instead."""
        self._leases.add(outcome.turns)
        for entry in self._line_up(entries, outcome.failed):
            error = outcome.failed.get(entry)
            if isinstance(entry, PendingClaim) and error:
                entry.claim = None  # a claim that was not committed is not valid
            has_given_up = entry.is_complete
            if not has_given_up:
                entry.complete(error)
            if isinstance(entry, PendingClaim) and entry.claim and (entry.is_abandoned or has_given_up):
                self.put(GiveBack([entry.claim]))

    def _line_up(self, entries: list[Entry], failed: Mapping[Entry, Exception]) -> list[Entry]:
        """Put the claims that can wait for a key into the waiting line; return the other entries."""
        others: list[Entry] = []
        lines: dict[str, tuple[list[PendingClaim], list[PendingClaim]]] = {}  # already waiting, and newcomers
        opens_at: dict[str, float] = {}
        moment, now = self._transaction.clock.moment(), time.monotonic()
        count = len(self._waiting)
        for entry in entries:
            error = failed.get(entry)
            if not (
                isinstance(entry, PendingClaim)
                and not entry.is_complete
                and isinstance(error, PoolExhausted)
                and entry.can_wait_for(error, moment)
                and (entry.has_waited or count < self.most_waiting)
            ):
                others.append(entry)
                continue
            name = entry.claim_request.line
            lines.setdefault(name, ([], []))[0 if entry.has_waited else 1].append(entry)
            count += 1
            entry.begin_to_wait()
            seconds = (cast("datetime", error.opens_at) - moment).total_seconds()
            opens_at[name] = min(now + seconds, opens_at.get(name, math.inf))
        for name, (line, newcomers) in lines.items():
            self._waiting.wait(name, line, opens_at[name], now, newcomers)
        return others
