"""What happens to one request on its way: how much time it has, which keys were tried, how long it waited."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.gemini.refusals import Fault, Refusal
from proxy.gemini.tokens import Tokens
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim, ClaimRequest, PoolExhausted
from proxy.ledger.history import NO_TOKENS, FinishedRequest
from proxy.upstream.exchange import Call

logger = logging.getLogger(__name__)

PAUSES = (0.25, 0.75)  # seconds before an API that is troubled or out of reach is asked again


@dataclass(slots=True)
class Journey:
    """The way of a request through the relay, for its response's headers and the history.

    seconds: until when keys may be tried; wait_seconds: of these, until when it may wait for one that rests. tries: the
    key's id and the status of its answer, 0 while there is none.
    """

    request_id: str
    seconds: float
    wait_seconds: float
    waited_seconds: float = 0.0
    key_label: str = ""
    attempts: list[tuple[int, int]] = field(default_factory=list)
    _tried: set[int] = field(default_factory=set)
    _pauses: Iterator[float] = field(default_factory=lambda: iter(PAUSES))
    _began: float = field(default_factory=time.monotonic)
    _moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    _answered: float | None = None
    _is_over: bool = False

    @property
    def keys_tried(self) -> int:
        return len(self.attempts)

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
        claim_request = ClaimRequest(
            model_name=call.model_name,
            tokens=call.input_tokens,
            tried=frozenset(self._tried),
            gives_up_at=self._began + min(self.wait_seconds, self.seconds),
            deadline=self._began + self.seconds,
        )
        has_waited = False
        try:
            claim, has_waited = ledger.claim(claim_request)
        except PoolExhausted as exhausted:
            has_waited = exhausted.has_waited
            raise
        finally:
            if has_waited:
                self.waited_seconds += time.monotonic() - asked_at
                self._tried.clear()  # those that were tried had their rest
        self.attempts.append((claim.key_id, 0))
        self.key_label = claim.label
        return claim

    def note_answer(self, status: int) -> None:
        """Note the status of what came back from the key that was tried."""
        self.attempts[-1] = (self.attempts[-1][0], status)
        self._answered = time.monotonic()

    def end(
        self, call: Call, status: int, ledger: Ledger, *, tokens: Tokens = NO_TOKENS, is_refused: bool = False
    ) -> None:
        """Hand the request over to the history; once. status: what the client got; is_refused: no key was left."""
        if self._is_over:
            return
        self._is_over = True
        has_answer = bool(self.attempts) and self.attempts[-1][1] == status and self._answered is not None
        ledger.record(
            FinishedRequest(
                began=self._moment,
                request_id=self.request_id,
                method=call.method,
                action=call.target.action,
                model_name=call.model_name,
                attempts=self.attempts,
                status=status,
                is_refused=is_refused,
                waited_ms=round(self.waited_seconds * 1000),
                first_byte_ms=self._since_beginning(self._answered) if has_answer else None,
                duration_ms=self._since_beginning(time.monotonic()),
                tokens=tokens,
            )
        )

    def _since_beginning(self, moment: float | None) -> int:
        return round(((moment or self._began) - self._began) * 1000)

    def note_refusal(self, claim: Claim, refusal: Refusal, until: datetime | None) -> None:
        """Do not take this key again, unless all have to be waited for."""
        self._tried.add(claim.key_id)
        rest = until.astimezone().isoformat(timespec="seconds") if until else "somebody acts"
        window = refusal.window
        logger.info(
            "%s: %s was refused %s (%s), rests until %s", self.request_id, claim.label, claim.model_name, window, rest
        )

    def note_bad_key(self, claim: Claim, fault: Fault, reason: str) -> None:
        """Do not take this key again."""
        self._tried.add(claim.key_id)
        logger.warning("%s: %s is %s and leaves the rotation: %s", self.request_id, claim.label, fault, reason)
