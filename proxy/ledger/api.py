"""Claims keys and books what they did: the one place that writes on the hot path.

Group commit. Callers put what they want into a queue; one writer thread (under gevent: a greenlet) commits all that has
come together in one short transaction, and wakes them. One request alone pays for a small transaction; the busier the
service, the cheaper each claim. No network call ever happens inside, and no caller holds a database connection.
"""

import atexit
import logging
import math
import queue
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, tzinfo
from functools import partial
from typing import cast

from django.conf import settings
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.backends.utils import CursorWrapper

from proxy.gemini.quota_day import next_reset, quota_day
from proxy.gemini.refusals import Fault, Refusal, rests_until
from proxy.gemini.tokens import Tokens
from proxy.ledger.bookings import (
    add_usage,
    learn_project,
    take_back,
    write_answer,
    write_fault,
    write_overload,
    write_rest,
    write_spent_day,
)
from proxy.ledger.claims import Claim, PoolExhausted, Wish
from proxy.ledger.clock import ClockWatch
from proxy.ledger.entries import AskedFor, Booking, Entry, Finished
from proxy.ledger.history import FinishedRequest, write_history
from proxy.ledger.minute_window import after_clock_was_set, correct
from proxy.ledger.retention import prune
from proxy.ledger.rotation import FoundRotation, Progress
from proxy.ledger.scheduler import Claiming
from proxy.ledger.waiting_line import WaitingRoom
from proxy.models import lock_quotas

logger = logging.getLogger(__name__)

OVERLOADED = 503  # 500 and 504 may be about the request
_LARGEST_BATCH = 256
_TRY_AGAIN_SECONDS = 0.5
# What is not urgent is written with what comes next, or so much later: a lone client's next claim is not kept by it.
_LATER_SECONDS = 0.005
# The history is not needed at once, and costs least when many requests are written together.
_HISTORY_EVERY_SECONDS = 0.25


class LedgerUnavailable(Exception):
    """The database did not take the claim or booking (in time). A booking is kept, and written as soon as it can be."""


class Ledger:
    """The queue and its writer, which starts with the first use. One a process; safe to share between threads.

    most_waiting: how many requests may wait for a key at once. bare_429_is_for_the_day: how a refusal is read that says
    nothing. log_days: for how long requests stay in the log; 0: there is none.
    """

    def __init__(
        self,
        zone: tzinfo,
        *,
        most_waiting: int = 1000,
        bare_429_is_for_the_day: bool = False,
        log_days: float = 7,
    ) -> None:
        self.most_waiting = most_waiting
        self.log_days = log_days
        self.bare_429_is_for_the_day = bare_429_is_for_the_day
        self._zone = zone
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._unsaved: list[Entry] = []
        self._waiting: WaitingRoom[AskedFor] = WaitingRoom()
        self._clock = ClockWatch()
        self._progress = Progress()
        self._finished: list[Entry] = []
        self._writes_history_at = 0.0
        self._start_lock = threading.Lock()
        self._writer: threading.Thread | None = None

    @property
    def queued(self) -> int:
        """How many entries nobody has taken out of the queue yet; about, since others put and take meanwhile."""
        return self._queue.qsize()

    @property
    def waiting(self) -> int:
        """How many requests wait for a key that rests."""
        return len(self._waiting)

    def claim(self, wish: Wish) -> tuple[Claim, bool]:
        """Return the key to ask with, and whether it had to be waited for.

        Raises PoolExhausted when there is none within the time that the wish can wait, LedgerUnavailable.
        """
        asked = AskedFor(wish)
        self._put(asked)
        try:
            asked.wait()
        except PoolExhausted as exhausted:
            exhausted.has_waited = asked.has_waited
            raise
        except Exception:
            raise
        except BaseException:  # the client left: a claim that was granted meanwhile is given back
            asked.is_abandoned = True
            if asked.is_settled and asked.claim:  # else it is given back when it is settled
                self.give_back(asked.claim)
            raise
        return cast("Claim", asked.claim), asked.has_waited

    def give_back(self, claim: Claim) -> None:
        """Take a claim back with which nothing was sent. Does not wait."""
        self._put(Booking(claim, datetime.now(UTC), partial(take_back, claim=claim)))

    def book_answer(self, claim: Claim, status: int) -> None:
        """Count an answer, or a 429 that is handed on; return once that is on disk. Raises LedgerUnavailable.

        A 503 lets the whole pool leave the model alone for a moment.
        """
        moment = datetime.now(UTC)

        def note(cursor: CursorWrapper) -> None:
            write_answer(cursor, claim, status)
            if status == OVERLOADED and claim.spends_quota:
                write_overload(cursor, claim)
            if claim.is_last_of_day:
                write_spent_day(claim, moment, next_reset(moment, self._zone))

        counts = {"refusals": 1} if status == 429 else {"answers": 1, "errors": int(status >= 400)}
        is_usual = claim.says_nothing_new and status != OVERLOADED
        booking = Booking(claim, moment, None if is_usual else note, is_awaited=True, **counts)
        self._put(booking)
        booking.wait()

    def book_refusal(self, claim: Claim, refusal: Refusal, project: str | None = None) -> datetime | None:
        """Count a 429 and let the key's project rest; return until when (None: somebody must act).

        project: whose number the refusal named. Does not wait: the next claim comes after it in the queue.
        """
        moment = datetime.now(UTC)
        until = rests_until(
            refusal,
            moment,
            self._zone,
            claim.refusals_in_a_row,
            is_bare_for_the_day=self.bare_429_is_for_the_day,
        )
        self._put(
            Booking(
                claim,
                moment,
                partial(write_rest, claim=claim, refusal=refusal, project=project, moment=moment, until=until),
                refusals=1,
            )
        )
        return until

    def book_fault(self, claim: Claim, fault: Fault, reason: str, project: str | None = None) -> None:
        """Count the answer, and take the key out of the rotation with `reason`. Does not wait."""
        moment = datetime.now(UTC)

        def note(cursor: CursorWrapper) -> None:
            take_back(cursor, claim)
            write_fault(claim, fault, reason, project, moment)

        self._put(Booking(claim, moment, note, answers=1, errors=1))

    def book_project(self, claim: Claim, project: str) -> None:
        """Note which project an error named. Does not wait."""
        moment = datetime.now(UTC)
        self._put(Booking(claim, moment, lambda _: learn_project(claim, project, moment)))

    def book_tokens(self, claim: Claim, tokens: Tokens) -> None:
        """Add the tokens of an answer, which was counted before. Does not wait."""
        if any(tokens):
            counts = {f"{name}_tokens": number for name, number in tokens._asdict().items() if number}
            is_off = claim.corrects_tokens and tokens.prompt and tokens.prompt != claim.tokens
            more = tokens.prompt - claim.tokens
            note = partial(correct, quota_id=claim.quota_id, tenth=claim.tenth, tokens=more) if is_off else None
            booking = Booking(claim, datetime.now(UTC), note, **counts)
            booking.is_urgent = False
            self._put(booking)

    def record(self, request: FinishedRequest) -> None:
        """Add a request that is over to the history, in a moment. Does not wait."""
        self._put(Finished(request))

    def close(self, timeout_seconds: float = 10) -> None:
        """Write what is still in the queue and stop the writer; the next use starts another."""
        with self._start_lock:
            if self._writer is not None:
                self._queue.put(None)
                self._writer.join(timeout_seconds)
                self._writer = None

    def _put(self, entry: Entry) -> None:
        if self._writer is None:
            with self._start_lock:
                if self._writer is None:
                    self._writer = threading.Thread(target=self._write_on, name="ledger", daemon=True)
                    self._writer.start()
        self._queue.put(entry)

    def _write_on(self) -> None:
        """Commit batch after batch until told to stop."""
        is_last = False
        while not is_last:
            batch = self._next_batch()
            is_last = None in batch
            entries, self._unsaved = [*self._unsaved, *self._arrange(filter(None, batch), is_last=is_last)], []
            if entries:
                self._commit(entries)
        for asked in self._waiting.take_all():
            asked.settle(LedgerUnavailable("The service stops."))
        if self._unsaved:
            entries, self._unsaved = self._unsaved, []
            self._commit(entries)
        connection.close()

    def _next_batch(self) -> list[Entry | None]:
        """Return what has come together; None in it: nothing comes any more."""
        batch: list[Entry | None] = []
        with suppress(queue.Empty):
            batch.append(self._queue.get(timeout=self._patience()))
            write_at = time.monotonic() + _LATER_SECONDS
            while (entry := batch[-1]) and not entry.is_urgent and len(batch) < _LARGEST_BATCH:
                batch.append(self._queue.get(timeout=max(0.0, write_at - time.monotonic())))
            time.sleep(0)  # under gevent: whoever is ready joins this batch
            while len(batch) < _LARGEST_BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    def _patience(self) -> float | None:
        """Return for how long to wait for new entries, in seconds; None: for ever."""
        # What could not be written is tried again soon, also when nothing new comes.
        times = [_TRY_AGAIN_SECONDS] if self._unsaved else []
        if (seconds := self._waiting.seconds_to_next(time.monotonic())) is not None:
            times.append(seconds)
        if self._finished:
            times.append(max(0.0, self._writes_history_at - time.monotonic()))
        return min(times, default=None)

    def _arrange(self, entries: Iterable[Entry], *, is_last: bool) -> list[Entry]:
        """Return what is to be written now. Wishes stand behind those that wait for the same; history comes in lots."""
        arranged: list[Entry] = []
        now = time.monotonic()
        for entry in entries:
            if isinstance(entry, AskedFor):
                name = entry.wish.rotation_name
                opens_at = self._waiting.opens_at(name)
                if opens_at and opens_at <= entry.gives_up_at and len(self._waiting) < self.most_waiting:
                    entry.begin_to_wait()
                    self._waiting.join(name, entry)
                    continue
            elif isinstance(entry, Booking) and entry.effect:
                self._waiting.look_soon(entry.claim.model_name)
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
        return [*(asked for asked in due if not asked.is_abandoned), *arranged]

    def _commit(self, entries: list[Entry]) -> None:
        """Write all of `entries` or none, and settle them; bookings that could not be written now are kept."""
        try:
            with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                failed = self._write(entries, cursor)
        except (OperationalError, InterfaceError) as exc:
            logger.error("The database did not take %d entries: %s", len(entries), exc)  # noqa: TRY400
            with suppress(DatabaseError):  # a writer that ended here would leave everybody waiting
                connection.close()
            self._unsaved += [entry for entry in entries if not isinstance(entry, AskedFor)]
            failed = dict.fromkeys(entries, LedgerUnavailable("The database is locked or out of reach."))
        except Exception:
            if len(entries) > 1:  # one of them is wrong: find it by writing each on its own
                for entry in entries:
                    self._commit([entry])
                return
            logger.exception("The ledger could not write an entry.")
            failed = {entries[0]: LedgerUnavailable("The database refused the entry.")}
        self._settle(entries, failed)

    def _settle(self, entries: list[Entry], failed: dict[Entry, Exception]) -> None:
        """Wake those whose entries are done; wishes that a key comes back for in time stand in line instead."""
        for entry in self._line_up(entries, failed):
            error = failed.get(entry)
            if isinstance(entry, AskedFor) and error:
                entry.claim = None  # if it had one, that was not written
            entry.settle(error)
            if isinstance(entry, AskedFor) and entry.is_abandoned and entry.claim:
                self.give_back(entry.claim)

    def _line_up(self, entries: list[Entry], failed: dict[Entry, Exception]) -> list[Entry]:
        """Let wishes stand in line that a key comes back for in time; return all that do not."""
        others: list[Entry] = []
        lines: dict[str, tuple[list[AskedFor], list[AskedFor]]] = {}  # those that stood in it before, and newcomers
        opens_at: dict[str, float] = {}
        moment, now = datetime.now(UTC), time.monotonic()
        count = len(self._waiting)
        for entry in entries:
            error = failed.get(entry)
            if not (
                isinstance(entry, AskedFor)
                and isinstance(error, PoolExhausted)
                and entry.can_wait_for(error, moment)
                and (entry.has_waited or count < self.most_waiting)
            ):
                others.append(entry)
                continue
            name = entry.wish.rotation_name
            lines.setdefault(name, ([], []))[0 if entry.has_waited else 1].append(entry)
            count += 1
            entry.begin_to_wait()
            seconds = (cast("datetime", error.opens_at) - moment).total_seconds()
            opens_at[name] = min(now + seconds, opens_at.get(name, math.inf))
        for name, (line, newcomers) in lines.items():
            self._waiting.wait(name, line, opens_at[name], now, newcomers)
        return others

    def _write(self, entries: list[Entry], cursor: CursorWrapper) -> dict[Entry, Exception]:
        """Write bookings, then claims; return the wishes that cannot be granted, with the reason."""
        lock_quotas(cursor)
        if self._clock.was_set():
            after_clock_was_set(cursor, datetime.now(UTC))
        counts: defaultdict[tuple[int, str, date], Counter[str]] = defaultdict(Counter)
        wishes: defaultdict[str, list[AskedFor]] = defaultdict(list)
        bookings = [entry for entry in entries if isinstance(entry, Booking)]
        for booking in bookings:
            if booking.counts:
                row = (booking.claim.key_id, booking.claim.counted_name, quota_day(booking.moment, self._zone))
                counts[row].update(booking.counts)
        if counts:
            add_usage(cursor, counts)
        for effect in (booking.effect for booking in bookings if booking.effect):
            effect(cursor)
        if finished := [entry.request for entry in entries if isinstance(entry, Finished)]:
            write_history(cursor, finished, has_log=self.log_days > 0)
            prune(cursor, datetime.now(UTC), self.log_days, self._zone)
        for entry in entries:
            if isinstance(entry, AskedFor):
                wishes[entry.wish.rotation_name].append(entry)
        failed: dict[Entry, Exception] = {}
        for rotation_name, asked in wishes.items():
            rotation = FoundRotation(cursor, rotation_name, self._zone, self._progress)
            results = Claiming(rotation).grant([entry.wish for entry in asked])
            for entry, result in zip(asked, results, strict=True):
                if isinstance(result, Claim):
                    entry.claim = result
                else:
                    failed[entry] = result
        return failed


ledger = Ledger(
    settings.QUOTA_ZONE,
    most_waiting=settings.MAX_WAITING,
    bare_429_is_for_the_day=settings.BARE_429 == "day",
    log_days=settings.REQUEST_LOG_DAYS,
)
atexit.register(ledger.close)
