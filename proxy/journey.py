"""The state of one request while it is relayed: its time limit, its attempts, and how long it waited."""

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
from proxy.models import Owner
from proxy.upstream.exchange import Call

logger = logging.getLogger(__name__)

PAUSES = (0.25, 0.75)  # seconds before each retry of an API that fails or cannot be reached


class DeadlineExceeded(Exception):
    """The request's time was used up by attempts with too many keys."""


@dataclass(slots=True)
class Journey:
    """One request on its way through the relay; its response headers and its log entry are made from this."""

    request_id: str
    # How long after the start of the request another attempt can begin.
    seconds: float
    # How long after the start of the request it can wait for a rate-limited key.
    wait_seconds: float
    waited_seconds: float = 0.0
    # The project that is preferred; None if any will do.
    home: int | None = None
    # The key and the project of the last attempt.
    key_label: str = ""
    project_id: int = 0
    # For each attempt, the id of its key and the status of its answer; 0 while there is none.
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
        """Take no longer than the client's own timeout, if it sent one."""
        if seconds is not None:
            self.seconds = min(self.seconds, seconds)

    @property
    def has_time(self) -> bool:
        return time.monotonic() < self._began + self.seconds

    def next_pause(self) -> float | None:
        """Return how many seconds to wait before the next retry; None when there is no retry left."""
        pause = next(self._pauses, None)
        return pause if pause and time.monotonic() + pause < self._began + self.seconds else None

    def next_claim(
        self,
        call: Call,
        ledger: Ledger,
        *,
        project_id: int = 0,
        done: frozenset[int] = frozenset(),
        looks_for: str = "",
    ) -> Claim:
        """Claim a key for the next attempt, waiting for one if necessary.

        project_id: the only project that will do; 0 if any will. done: projects that will not do. looks_for: as in
        `ClaimRequest`.
        Raises PoolExhausted, UnknownResource, UnknownUpload, SeveralProjects, LedgerUnavailable.
        """
        asked_at = time.monotonic()
        claim_request = ClaimRequest(
            model_name=call.model_name,
            tokens=call.input_tokens,
            tried=frozenset(self._tried),
            gives_up_at=self._began + min(self.wait_seconds, self.seconds),
            deadline=self._began + self.seconds,
            resources=call.resources,
            has_no_token=call.has_no_token,
            creator=call.creator,
            looks_for=looks_for,
            tried_projects=done,
            owner=Owner(0, project_id) if project_id else None,
            home=self.home,
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
                self._tried.clear()  # their cooldown may be over by now
        self.attempts.append((claim.key_id, 0))
        self.key_label = claim.label
        self.project_id = claim.project_id
        return claim

    def note_answer(self, status: int) -> None:
        """Note the status of the answer to the current attempt."""
        self.attempts[-1] = (self.attempts[-1][0], status)
        self._answered = time.monotonic()

    def end(
        self, call: Call, status: int, ledger: Ledger, *, tokens: Tokens = NO_TOKENS, is_refused: bool = False
    ) -> None:
        """Record the request in the history; later calls do nothing.

        status: sent to the client. is_refused: no key was left.
        """
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
                first_byte_ms=self._since_start(self._answered) if has_answer else None,
                duration_ms=self._since_start(time.monotonic()),
                tokens=tokens,
            )
        )

    def _since_start(self, moment: float | None) -> int:
        return round(((moment or self._began) - self._began) * 1000)

    def note_refusal(self, claim: Claim, refusal: Refusal, until: datetime | None) -> None:
        """Do not use this key again, unless the request has to wait for one."""
        self._tried.add(claim.key_id)
        logger.info(
            "%s: %s got a 429 for %s (%s), cooldown until %s",
            self.request_id,
            claim.label,
            claim.model_name,
            refusal.window,
            until.astimezone().isoformat(timespec="seconds") if until else "it is revived manually",
        )

    def note_bad_key(self, claim: Claim, fault: Fault, reason: str) -> None:
        """Do not use this key again."""
        self._tried.add(claim.key_id)
        logger.warning("%s: %s is %s and leaves the rotation: %s", self.request_id, claim.label, fault, reason)
