"""START HERE: the life of one request, top to bottom.

A client asks; we claim the least recently used key that may be asked for this model, and send the request on with it.
When Google refuses (429), the key rests, and the next one is tried; when Google will not take the key any more, the key
leaves the rotation with the reason, and the next one is tried. An overloaded API is asked again a little. Whatever else
comes back is the answer: it is counted first, then handed on byte for byte as it comes, its tokens counted on the side.
"""

import logging
import time
from collections.abc import Iterator

from proxy.answer import Answer, CountedBody
from proxy.ledger import Ledger
from proxy.posting import Claim
from proxy.refusals import message_in, read_fault, read_refusal
from proxy.upstream import Call, Upstream, UpstreamAnswer, UpstreamUnreachable

logger = logging.getLogger(__name__)

OVERLOADED = {500, 503, 504}
PAUSES = (0.25, 0.75)  # seconds before an overloaded or unreachable API is asked again
LOST = 504  # how an answer that never came is counted: Google may have done the work


class DeadlineExceeded(Exception):
    """Too much time went into tries with too many keys."""


def relay(call: Call, *, ledger: Ledger, upstream: Upstream, deadline_seconds: float) -> Answer:
    """Answer `call` with the first key that the upstream accepts.

    Raises PoolExhausted when no key is left, UpstreamUnreachable and AnswerLost when no answer came, DeadlineExceeded
    when the fail-overs took too long, LedgerUnavailable when the database did not take a claim or a booking.
    """
    deadline = time.monotonic() + deadline_seconds
    for claim in ledger.claims(call.model_name):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(call.model_name)
        answer = ask(call, claim, ledger, upstream, deadline)
        if answer.status >= 400:
            if refusal := read_refusal(answer.status, answer.error):
                answer.close()
                until = ledger.book_refusal(claim, refusal)
                logger.info(
                    "%s was refused %s (%s), rests until %s",
                    claim.label,
                    claim.model_name,
                    refusal.window,
                    until.astimezone().isoformat(timespec="seconds") if until else "somebody acts",
                )
                continue
            if fault := read_fault(answer.status, answer.error):
                answer.close()
                reason = message_in(answer.error)
                ledger.book_fault(claim, fault, reason)
                logger.warning("%s is %s and leaves the rotation: %s", claim.label, fault, reason)
                continue
        try:
            ledger.book_answer(claim, answer.status)
        except BaseException:
            answer.close()
            raise
        return Answer(answer.status, answer.headers, CountedBody(answer, claim, ledger))
    raise AssertionError("claims end with PoolExhausted")


def ask(call: Call, claim: Claim, ledger: Ledger, upstream: Upstream, deadline: float) -> UpstreamAnswer:
    """Ask with one key, and again after a pause while the API is overloaded or out of reach and repeating is safe."""
    pauses = iter(PAUSES)
    while True:
        try:
            answer = upstream.send(call, claim.secret)
        except UpstreamUnreachable:
            if not (pause := _next_pause(pauses, deadline)):
                raise
        except BaseException:  # AnswerLost, and GreenletExit: the client left while Google was at work
            ledger.book_answer(claim, LOST)
            raise
        else:
            if answer.status not in OVERLOADED or not call.target.is_repeatable:
                return answer
            if not (pause := _next_pause(pauses, deadline)):
                return answer
            answer.close()
            ledger.book_answer(claim, answer.status)
        time.sleep(pause)


def _next_pause(pauses: Iterator[float], deadline: float) -> float | None:
    pause = next(pauses, None)
    return pause if pause and time.monotonic() + pause < deadline else None
