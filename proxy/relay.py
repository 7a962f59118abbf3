"""START HERE: the life of one request, top to bottom.

A client asks; we claim a key that may be asked for this model, waiting for one if need be, and send the request on with
it. When Google refuses (429), the key's project rests, and the next key is tried; when Google will not take the key any
more, the key leaves the rotation with the reason, and the next one is tried. An API in trouble is asked again a little,
and when it is overloaded (503), the whole pool leaves that model alone for a moment. Whatever else comes back is the
answer: it is counted first, then handed on byte for byte as it comes, its tokens counted on the side.
"""

import time

from proxy.answer import Answer, CountedBody
from proxy.gemini.refusals import message_in, project_in, read_fault, read_refusal
from proxy.journey import Journey
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim
from proxy.upstream.exchange import Call, Upstream, UpstreamAnswer, UpstreamUnreachable

TROUBLED = {500, 503, 504}
LOST = 504  # how an answer that never came is counted: Google may have done the work


class DeadlineExceeded(Exception):
    """Too much time went into tries with too many keys."""


def relay(call: Call, *, ledger: Ledger, upstream: Upstream, journey: Journey) -> Answer:
    """Answer `call` with the first key that the upstream accepts.

    Raises PoolExhausted when no key is left, UpstreamUnreachable and AnswerLost when no answer came, DeadlineExceeded
    when the fail-overs took too long, LedgerUnavailable when the database did not take a claim or a booking.
    """
    while journey.has_time:
        claim = journey.next_claim(call, ledger)
        try:
            answer = ask(call, claim, ledger, upstream)
            journey.note_answer(answer.status)
        except UpstreamUnreachable:
            if (pause := journey.next_pause()) is None:
                raise
            time.sleep(pause)
            continue
        if answer.status >= 400:
            project = project_in(answer.error)
            if refusal := read_refusal(answer.status, answer.error):
                answer.close()
                until = ledger.book_refusal(claim, refusal, project)
                journey.note_refusal(claim, refusal, until)
                continue
            if fault := read_fault(answer.status, answer.error):
                answer.close()
                reason = message_in(answer.error)
                ledger.book_fault(claim, fault, reason, project)
                journey.note_bad_key(claim, fault, reason)
                continue
            is_worth_another_try = answer.status in TROUBLED and call.target.is_repeatable
            if is_worth_another_try and (pause := journey.next_pause()):
                answer.close()
                ledger.book_answer(claim, answer.status)
                time.sleep(pause)
                continue
            if project:
                ledger.book_project(claim, project)
        try:
            ledger.book_answer(claim, answer.status)
        except BaseException:
            answer.close()
            raise
        return Answer(answer.status, answer.headers, CountedBody(answer, claim, ledger))
    raise DeadlineExceeded(call.model_name)


def ask(call: Call, claim: Claim, ledger: Ledger, upstream: Upstream) -> UpstreamAnswer:
    """Ask with one key. What was never sent is taken back; what may have been paid for is counted."""
    try:
        return upstream.send(call, claim.secret)
    except UpstreamUnreachable:
        ledger.give_back(claim)
        raise
    except BaseException:  # AnswerLost, and GreenletExit: the client left while Google was at work
        ledger.book_answer(claim, LOST)
        raise
