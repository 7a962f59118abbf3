"""Claims keys and books what they did: the one place that writes on the hot path.

Group commit. Callers put what they want into a queue; one writer thread (under gevent: a greenlet) commits all that has
come together in one short transaction, and wakes them. One request alone pays for a small transaction; the busier the
service, the cheaper each claim. No network call ever happens inside, and no caller holds a database connection.
"""

import atexit
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
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

from proxy.models import ApiKey, Place
from proxy.posting import Claim, add_usage, take_keys, write_rest
from proxy.quota import quota_day
from proxy.refusals import Fault, Refusal, rests_until
from proxy.tokens import Tokens

logger = logging.getLogger(__name__)

_LARGEST_BATCH = 256
_TRY_AGAIN_SECONDS = 0.5


class LedgerUnavailable(Exception):
    """The database did not take the claim or booking (in time). A booking is kept, and written as soon as it can be."""


class _Entry:
    """Something in the queue; `done` is set when it is committed, or has failed with `error`."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: Exception | None = None

    def settle(self, error: Exception | None = None) -> None:
        self.error = error
        self.done.set()

    def wait(self) -> None:
        self.done.wait()
        if self.error:
            raise self.error


class _Wish(_Entry):
    """A claim that somebody waits for."""

    __slots__ = ("claim", "model_name", "tried")

    def __init__(self, model_name: str, tried: set[int]) -> None:
        super().__init__()
        self.model_name = model_name
        self.tried = tried
        self.claim: Claim | None = None


class _Booking(_Entry):
    """Numbers to add to a row of DailyUsage, and what else is to be written in the same transaction."""

    __slots__ = ("claim", "counts", "effect", "moment")

    def __init__(
        self, claim: Claim, moment: datetime, effect: Callable[[], object] | None = None, **counts: int
    ) -> None:
        super().__init__()
        self.claim = claim
        self.moment = moment
        self.effect = effect
        self.counts = counts


class Ledger:
    """The queue and its writer, which starts with the first use. One a process; safe to share between threads."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._unsaved: list[_Entry] = []
        self._start_lock = threading.Lock()
        self._writer: threading.Thread | None = None

    def claims(self, model_name: str) -> Iterator[Claim]:
        """Yield keys for `model_name`, least recently used first, none twice. Raises PoolExhausted at the end."""
        tried: set[int] = set()
        while True:
            wish = _Wish(model_name, tried)
            self._put(wish)
            wish.wait()
            claim = cast("Claim", wish.claim)
            tried.add(claim.key_id)
            yield claim

    def book_answer(self, claim: Claim, status: int) -> None:
        """Count an answer, or a 429 that is handed on; return once that is on disk. Raises LedgerUnavailable."""
        effect = None
        if claim.refusals_in_a_row and status < 400:
            places = Place.objects.filter(key=claim.key_id, model_name=claim.model_name)
            effect = partial(places.update, refusals_in_a_row=0)
        counts = {"refusals": 1} if status == 429 else {"answers": 1, "errors": int(status >= 400)}
        booking = _Booking(claim, datetime.now(UTC), effect, **counts)
        self._put(booking)
        booking.wait()

    def book_refusal(self, claim: Claim, refusal: Refusal) -> datetime | None:
        """Count a 429 and let the key, and all keys of its project, rest; return until when (None: somebody must act).

        Does not wait: the next claim comes after it in the queue.
        """
        moment = datetime.now(UTC)
        until = rests_until(refusal, moment, self._zone, claim.refusals_in_a_row)
        self._put(_Booking(claim, moment, partial(write_rest, claim, refusal, moment, until), refusals=1))
        return until

    def book_fault(self, claim: Claim, fault: Fault, reason: str) -> None:
        """Count the answer, and take the key out of the rotation with `reason`. Does not wait."""
        moment = datetime.now(UTC)
        keys = ApiKey.objects.filter(id=claim.key_id)
        self._put(_Booking(claim, moment, partial(keys.mark_bad, fault, reason, moment), answers=1, errors=1))

    def book_tokens(self, claim: Claim, tokens: Tokens) -> None:
        """Add the tokens of an answer, which was counted before. Does not wait."""
        if any(tokens):
            counts = {f"{name}_tokens": number for name, number in tokens._asdict().items() if number}
            self._put(_Booking(claim, datetime.now(UTC), **counts))

    def close(self, timeout_seconds: float = 10) -> None:
        """Write what is still in the queue and stop the writer; the next use starts another."""
        with self._start_lock:
            if self._writer is not None:
                self._queue.put(None)
                self._writer.join(timeout_seconds)
                self._writer = None

    def _put(self, entry: _Entry) -> None:
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
            batch: list[_Entry | None] = []
            try:
                # What could not be written is tried again soon, also when nothing new comes.
                batch.append(self._queue.get(timeout=_TRY_AGAIN_SECONDS if self._unsaved else None))
                time.sleep(0)  # under gevent: whoever is ready joins this batch
                while len(batch) < _LARGEST_BATCH:
                    batch.append(self._queue.get_nowait())
            except queue.Empty:
                pass
            is_last = None in batch
            entries, self._unsaved = [*self._unsaved, *filter(None, batch)], []
            self._commit(entries)
        if self._unsaved:
            entries, self._unsaved = self._unsaved, []
            self._commit(entries)
        connection.close()

    def _commit(self, entries: list[_Entry]) -> None:
        """Write all of `entries` or none, and settle them; bookings that could not be written now are kept."""
        try:
            with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                failed = self._write(entries, cursor)
        except (OperationalError, InterfaceError) as exc:
            logger.error("The database did not take %d entries: %s", len(entries), exc)  # noqa: TRY400
            with suppress(DatabaseError):  # a writer that ended here would leave everybody waiting
                connection.close()
            self._unsaved += [entry for entry in entries if isinstance(entry, _Booking)]
            failed = dict.fromkeys(entries, LedgerUnavailable("The database is locked or out of reach."))
        except Exception:
            if len(entries) > 1:  # one of them is wrong: find it by writing each on its own
                for entry in entries:
                    self._commit([entry])
                return
            logger.exception("The ledger could not write an entry.")
            failed = {entries[0]: LedgerUnavailable("The database refused the entry.")}
        for entry in entries:
            entry.settle(failed.get(entry))

    def _write(self, entries: list[_Entry], cursor: CursorWrapper) -> dict[_Entry, Exception]:
        """Write bookings, then claims; return the wishes that cannot be granted, with the reason."""
        counts: dict[tuple[int, str, date], Counter[str]] = {}
        wishes: dict[str, list[_Wish]] = {}
        effects = []
        for entry in entries:
            if isinstance(entry, _Wish):
                wishes.setdefault(entry.model_name, []).append(entry)
            elif isinstance(entry, _Booking):
                row = (entry.claim.key_id, entry.claim.model_name, quota_day(entry.moment, self._zone))
                counts.setdefault(row, Counter()).update(entry.counts)
                effects.append(entry.effect)
        if counts:
            add_usage(cursor, counts)
        for effect in filter(None, effects):
            effect()
        failed: dict[_Entry, Exception] = {}
        for model_name, wanted in wishes.items():
            for wish, claim in zip(wanted, take_keys(cursor, model_name, [wish.tried for wish in wanted]), strict=True):
                if isinstance(claim, Claim):
                    wish.claim = claim
                else:
                    failed[wish] = claim
        return failed


ledger = Ledger(settings.QUOTA_ZONE)
atexit.register(ledger.close)
