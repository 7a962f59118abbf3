"""What stands in the ledger's queue: wishes for a key, bookings of what became of one, and requests that are over."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Self

from django.db.backends.utils import CursorWrapper

from proxy.ledger.bookings import take_back
from proxy.ledger.claims import Claim, Overloaded, PoolExhausted, Wish
from proxy.ledger.history import FinishedRequest


class Entry:
    """Something in the queue; it is settled when it is committed, or has failed with `error`.

    is_urgent: somebody waits for it, or may decide by what it says; the rest can be written a moment later.
    """

    __slots__ = ("_done", "error", "is_settled", "is_urgent")

    def __init__(self, *, is_awaited: bool = True) -> None:
        self._done = threading.Event() if is_awaited else None
        self.is_urgent = True
        self.is_settled = False
        self.error: Exception | None = None

    def settle(self, error: Exception | None = None) -> None:
        self.error = error
        self.is_settled = True
        if self._done:
            self._done.set()

    def wait(self) -> None:
        """Wait until it is settled; raises its error."""
        if self._done:
            self._done.wait()
        if self.error:
            raise self.error


class AskedFor(Entry):
    """A wish for a claim that somebody waits for; nobody any more when it is abandoned."""

    __slots__ = ("_is_overloaded", "claim", "has_waited", "is_abandoned", "wish")

    def __init__(self, wish: Wish) -> None:
        super().__init__()
        self.wish = wish
        self.claim: Claim | None = None
        self.is_abandoned = False
        self.has_waited = False
        self._is_overloaded = False

    @property
    def gives_up_at(self) -> float:
        """Until when it can wait, by `time.monotonic()`: longer for an API that recovers than for a key that rests."""
        return self.wish.deadline if self._is_overloaded else self.wish.gives_up_at

    def can_wait_for(self, exhausted: PoolExhausted, moment: datetime) -> bool:
        """Tell whether a key comes back within its time."""
        self._is_overloaded = isinstance(exhausted, Overloaded)
        if exhausted.opens_at is None or exhausted.are_tried:
            return False
        # It may have come back while this was written.
        seconds = max(0.0, (exhausted.opens_at - moment).total_seconds())
        return time.monotonic() + seconds <= self.gives_up_at

    def begin_to_wait(self) -> None:
        """From now on in a line; keys that were tried may have rested enough when it is over."""
        self.has_waited = True
        self.wish = replace(self.wish, tried=frozenset())


class Booking(Entry):
    """Numbers to add to a row of DailyUsage, and what else is to be written in the same transaction."""

    __slots__ = ("claim", "counts", "effect", "moment")

    def __init__(
        self,
        claim: Claim,
        moment: datetime,
        effect: Callable[[CursorWrapper], object] | None = None,
        *,
        is_awaited: bool = False,
        **counts: int,
    ) -> None:
        super().__init__(is_awaited=is_awaited)
        self.claim = claim
        self.moment = moment
        self.effect = effect
        self.counts = counts

    @classmethod
    def unused(cls, claim: Claim) -> Self:
        """Return the booking that gives a claim back with which nothing was sent."""
        return cls(claim, datetime.now(UTC), partial(take_back, claim=claim))


class Finished(Entry):
    """A request that is over, for the history. Nobody waits for it."""

    __slots__ = ("request",)

    def __init__(self, request: FinishedRequest) -> None:
        super().__init__(is_awaited=False)
        self.is_urgent = False
        self.request = request
