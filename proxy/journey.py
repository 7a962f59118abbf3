"""What happens to one request on its way: how much time it has, which keys were tried, how long it waited."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from proxy.claims import Claim, PoolExhausted, Wish
from proxy.ledger import Ledger
from proxy.refusals import Fault, Refusal
from proxy.upstream import Call

logger = logging.getLogger(__name__)

PAUSES = (0.25, 0.75)  # seconds before an API that is troubled or out of reach is asked again


@dataclass(slots=True)
class Journey:
    """The way of a request through the relay, for its response's headers and the log.

    seconds: until when keys may be tried; wait_seconds: of these, until when it may wait for one that rests.
    """

    request_id: str
    seconds: float
    wait_seconds: float
    keys_tried: int = 0
    waited_seconds: float = 0.0
    key_label: str = ""
    _tried: set[int] = field(default_factory=set)
    _pauses: Iterator[float] = field(default_factory=lambda: iter(PAUSES))
    _began: float = field(default_factory=time.monotonic)

    def shorten(self, seconds: float | None) -> None:
        """Do not take longer than the client says it waits, if it does."""
        if seconds is not None:
            self.seconds = min(self.seconds, seconds)

    @property
    def has_time(self) -> bool:
        return time.monotonic() < self._began + self.seconds

    def next_pause(self) -> float | None:
        """Return for how long to wait, in seconds, before an answer is asked for again; None: not again."""
        pause = next(self._pauses, None)
        return pause if pause and time.monotonic() + pause < self._began + self.seconds else None

    def next_claim(self, call: Call, ledger: Ledger) -> Claim:
        """Claim a key for the next try, waiting for it if need be. Raises PoolExhausted, LedgerUnavailable."""
        asked_at = time.monotonic()
        wish = Wish(
            model_name=call.model_name,
            tokens=call.input_tokens,
            tried=frozenset(self._tried),
            gives_up_at=self._began + min(self.wait_seconds, self.seconds),
            deadline=self._began + self.seconds,
        )
        has_waited = False
        try:
            claim, has_waited = ledger.claim(wish)
        except PoolExhausted as exhausted:
            has_waited = exhausted.has_waited
            raise
        finally:
            if has_waited:
                self.waited_seconds += time.monotonic() - asked_at
                self._tried.clear()  # those that were tried had their rest
        self.keys_tried += 1
        self.key_label = claim.label
        return claim

    def was_refused(self, claim: Claim, refusal: Refusal, until: datetime | None) -> None:
        """Do not take this key again, unless all have to be waited for."""
        self._tried.add(claim.key_id)
        rest = until.astimezone().isoformat(timespec="seconds") if until else "somebody acts"
        window = refusal.window
        logger.info(
            "%s: %s was refused %s (%s), rests until %s", self.request_id, claim.label, claim.model_name, window, rest
        )

    def met_bad_key(self, claim: Claim, fault: Fault, reason: str) -> None:
        """Do not take this key again."""
        self._tried.add(claim.key_id)
        logger.warning("%s: %s is %s and leaves the rotation: %s", self.request_id, claim.label, fault, reason)
