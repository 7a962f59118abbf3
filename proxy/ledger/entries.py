"""Entries of the ledger's queue: pending claims, bookings, and finished requests."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from django.db.backends.utils import CursorWrapper

from proxy.ledger.claims import Claim, ClaimRequest, Overloaded, PoolExhausted
from proxy.ledger.history import FinishedRequest


class Entry:
    """Something to write. It is complete once it is committed, or has failed with `error`."""

    __slots__ = ("_done", "error", "is_complete", "is_urgent", "put_at")

    def __init__(self, *, is_awaited: bool = True) -> None:
        self._done = threading.Event() if is_awaited else None
        # An entry that is not urgent can be written a few milliseconds later.
        self.is_urgent = True
        self.is_complete = False
        self.error: Exception | None = None
        # By `time.monotonic()`.
        self.put_at = time.monotonic()

    def complete(self, error: Exception | None = None) -> None:
        """Wake up the caller that waits for this entry. error: why it was not written."""
        self.error = error
        self.is_complete = True
        if self._done:
            self._done.set()

    def wait(self) -> None:
        """Wait until the entry is complete. Raises its error."""
        if self._done:
            self._done.wait()
        if self.error:
            raise self.error

    def is_complete_within(self, seconds: float) -> bool:
        """Wait for up to `seconds`; tell whether the entry is complete by then, without an error."""
        return self._done is not None and self._done.wait(seconds) and self.error is None


class PendingClaim(Entry):
    """A request for a claim, and the claim once it is granted."""

    __slots__ = ("_is_overloaded", "claim", "claim_request", "has_waited", "is_abandoned")

    def __init__(self, claim_request: ClaimRequest) -> None:
        super().__init__()
        self.claim_request = claim_request
        self.claim: Claim | None = None
        # Set once the client has disconnected.
        self.is_abandoned = False
        self.has_waited = False
        self._is_overloaded = False

    @property
    def gives_up_at(self) -> float:
        """When it stops waiting, by `time.monotonic()`: later for an overloaded API than for a rate-limited key."""
        return self.claim_request.deadline if self._is_overloaded else self.claim_request.gives_up_at

    def can_wait_for(self, exhausted: PoolExhausted, moment: datetime) -> bool:
        """Tell whether a key becomes available in time."""
        self._is_overloaded = isinstance(exhausted, Overloaded)
        if exhausted.opens_at is None or exhausted.are_tried:
            return False
        # The key may have become available while the batch was written.
        seconds = max(0.0, (exhausted.opens_at - moment).total_seconds())
        return time.monotonic() + seconds <= self.gives_up_at

    def begin_to_wait(self) -> None:
        """Note that it is waiting. Keys that it tried before can be used again afterwards."""
        self.has_waited = True
        self.claim_request = replace(self.claim_request, tried=frozenset())


class Booking(Entry):
    """Counts to add to a row of DailyUsage, and what else to write in the same transaction."""

    __slots__ = ("claim", "corrects", "counts", "effect", "moment", "proves")

    def __init__(
        self,
        claim: Claim,
        moment: datetime,
        effect: Callable[[CursorWrapper], object] | None = None,
        *,
        is_awaited: bool = False,
        proves: bool = False,
        corrects: int = 0,
        **counts: int,
    ) -> None:
        super().__init__(is_awaited=is_awaited)
        self.claim = claim
        self.moment = moment
        # Whatever is unusual.
        self.effect = effect
        # The answer shows that the quota accepts this many requests a minute.
        self.proves = proves
        # How many input tokens the estimate was short of.
        self.corrects = corrects
        self.counts = counts


class Probe(Entry):
    """Nothing to write: it only finds out whether a transaction with the lock is possible."""


class GiveBack(Entry):
    """Claims that were never sent."""

    __slots__ = ("claims",)

    def __init__(self, claims: Sequence[Claim]) -> None:
        super().__init__(is_awaited=False)
        self.claims = claims


class Finished(Entry):
    """A finished request, for the history."""

    __slots__ = ("request",)

    def __init__(self, request: FinishedRequest) -> None:
        super().__init__(is_awaited=False)
        self.is_urgent = False
        self.request = request
