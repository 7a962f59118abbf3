"""The ledger's public API: claim a key, then book the outcome.

Each call puts an entry into the queue of the writer thread (`writer.py`). A transaction never spans a network call, and
callers hold no database connection.
"""

import atexit
from datetime import datetime, tzinfo
from functools import partial
from typing import cast

from django.conf import settings
from django.db.backends.utils import CursorWrapper

from proxy.gemini.quota_day import next_reset
from proxy.gemini.refusals import Fault, Refusal, cooldown_end
from proxy.gemini.tokens import Tokens
from proxy.ledger.bookings import (
    learn_project,
    take_back,
    write_answer,
    write_fault,
    write_overload,
    write_refusal,
    write_resources,
    write_spent_day,
)
from proxy.ledger.claims import NOTHING_LEARNED, Claim, ClaimRequest, Learned, PoolExhausted
from proxy.ledger.entries import Booking, Finished, GiveBack, PendingClaim, Probe
from proxy.ledger.history import FinishedRequest
from proxy.ledger.leases import Leases
from proxy.ledger.transaction import LedgerTransaction
from proxy.ledger.writer import Writer
from proxy.models import Resource

OVERLOADED = 503  # 500 and 504 can be the request's own fault


class Ledger:
    """Claims keys and books outcomes. One per process; safe to share between threads."""

    def __init__(
        self,
        # The time zone of quota days.
        zone: tzinfo,
        *,
        # How many requests can wait for a key at once.
        most_waiting: int = 1000,
        # A 429 without details exhausts the key's project for the day.
        bare_429_is_for_the_day: bool = False,
        # How many days requests stay in the log; 0 turns the log off.
        log_days: float = 7,
    ) -> None:
        self.bare_429_is_for_the_day = bare_429_is_for_the_day
        self._zone = zone
        leases = Leases()
        self._transaction = LedgerTransaction(zone, leases, log_days=log_days)
        self._writer = Writer(self._transaction, leases, most_waiting=most_waiting)

    @property
    def queued(self) -> int:
        """How many entries are in the writer's queue; approximate."""
        return self._writer.queued

    @property
    def waiting(self) -> int:
        """How many requests are waiting for a key."""
        return self._writer.waiting

    @property
    def most_waiting(self) -> int:
        """How many requests can wait for a key at once."""
        return self._writer.most_waiting

    def moment(self) -> datetime:
        """Return the date and time by the clock of the database."""
        return self._transaction.clock.moment()

    def is_writing(self, within_seconds: float) -> bool:
        """Tell whether the database accepts a transaction within this time."""
        probe = Probe()
        self._writer.put(probe)
        return probe.is_complete_within(within_seconds)

    def claim(self, claim_request: ClaimRequest) -> tuple[Claim, bool]:
        """Return a claim, and whether the request had to wait for it.

        Raises PoolExhausted when no key becomes available in time, LedgerUnavailable.
        """
        if turn := self._writer.take_turn(claim_request):
            return turn, False
        pending = PendingClaim(claim_request)
        self._writer.put(pending)
        try:
            pending.wait()
        except PoolExhausted as exhausted:
            exhausted.has_waited = pending.has_waited
            raise
        except Exception:
            raise
        except BaseException:  # the client disconnected: give back a claim that was granted in the meantime
            pending.is_abandoned = True
            if pending.is_complete and pending.claim and not pending.error:  # otherwise the writer gives it back
                self.give_back(pending.claim)
            raise
        return cast("Claim", pending.claim), pending.has_waited

    def give_back(self, claim: Claim) -> None:
        """Give back a claim that was never sent. Does not wait."""
        self._writer.put(GiveBack([claim]))

    def book_answer(self, claim: Claim, status: int, learned: Learned = NOTHING_LEARNED) -> None:
        """Count an answer, or a 429 that is passed on, and return once the count and `learned` are on disk.

        After a 503 the whole pool backs off from the model for a moment. Raises LedgerUnavailable.
        """
        moment = self.moment()
        if status == OVERLOADED:
            self._writer.return_turns(lambda turn: turn.model_name == claim.model_name)

        def note(_: CursorWrapper) -> None:
            write_answer(claim, status)
            if status == OVERLOADED and claim.spends_quota:
                write_overload(claim, self._transaction.clock.now_ns())
            write_resources(claim, learned, moment)
            if claim.is_last_of_day:
                write_spent_day(claim, moment, next_reset(moment, self._zone))

        counts = {"refusals": 1} if status == 429 else {"answers": 1, "errors": int(status >= 400)}
        is_usual = claim.says_nothing_new and status != OVERLOADED and learned is NOTHING_LEARNED
        booking = Booking(
            claim, moment, None if is_usual else note, is_awaited=True, proves=claim.is_unproven, **counts
        )
        self._writer.put(booking)
        booking.wait()

    def book_refusal(self, claim: Claim, refusal: Refusal, project: str | None = None) -> datetime | None:
        """Count a 429 and start the cooldown of the key's project; return its end, None if it must be revived manually.

        project: the project number named in the refusal. Does not wait, since the next claim is behind it in the queue.
        """
        moment = self.moment()
        self._writer.return_turns(lambda turn: turn.quota_id == claim.quota_id or turn.key_id == claim.key_id)
        until = cooldown_end(
            refusal,
            moment,
            self._zone,
            claim.refusals_in_a_row,
            is_bare_for_the_day=self.bare_429_is_for_the_day,
        )
        self._writer.put(
            Booking(
                claim,
                moment,
                partial(write_refusal, claim=claim, refusal=refusal, project=project, moment=moment, until=until),
                refusals=1,
            )
        )
        return until

    def book_fault(self, claim: Claim, fault: Fault, reason: str, project: str | None = None) -> None:
        """Count the answer, and mark the key as bad with `reason`. Does not wait."""
        moment = self.moment()
        self._writer.return_turns(lambda turn: turn.key_id == claim.key_id)

        def note(cursor: CursorWrapper) -> None:
            take_back(cursor, claim)
            write_fault(claim, fault, reason, project, moment)

        self._writer.put(Booking(claim, moment, note, answers=1, errors=1))

    def book_project(self, claim: Claim, project: str) -> None:
        """Store the project number that an error named. Does not wait."""
        moment = self.moment()
        self._writer.put(Booking(claim, moment, lambda _: learn_project(claim, project, moment)))

    def remember(self, claim: Claim, learned: Learned) -> None:
        """Store what is learned of resources, and return once it is on disk. Raises LedgerUnavailable."""
        moment = self.moment()
        booking = Booking(claim, moment, lambda _: write_resources(claim, learned, moment), is_awaited=True)
        self._writer.put(booking)
        booking.wait()

    def remember_nobody(self, claim: Claim, name: str) -> None:
        """Store that no project has a resource, as the last of them was asked with `claim`. Does not wait."""
        moment = self.moment()
        self._writer.put(Booking(claim, moment, lambda _: Resource.objects.remember_nobody(name, moment)))

    def book_tokens(self, claim: Claim, tokens: Tokens) -> None:
        """Add the tokens of an answer that has been counted. Does not wait."""
        if any(tokens):
            counts = {f"{name}_tokens": number for name, number in tokens._asdict().items() if number}
            is_off = claim.corrects_tokens and tokens.prompt and tokens.prompt != claim.tokens
            booking = Booking(claim, self.moment(), corrects=tokens.prompt - claim.tokens if is_off else 0, **counts)
            booking.is_urgent = False
            self._writer.put(booking)

    def record(self, request: FinishedRequest) -> None:
        """Add a finished request to the history. Does not wait."""
        self._writer.put(Finished(request))

    def close(self, timeout_seconds: float = 10) -> None:
        """Write what is still in the queue and stop the writer; the next use starts another."""
        self._writer.close(timeout_seconds)


ledger = Ledger(
    settings.QUOTA_ZONE,
    most_waiting=settings.MAX_WAITING,
    bare_429_is_for_the_day=settings.BARE_429 == "day",
    log_days=settings.REQUEST_LOG_DAYS,
)
atexit.register(ledger.close)
