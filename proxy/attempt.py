"""One attempt to answer a request with one key."""

from proxy.gemini.refusals import message_in, project_in, read_fault, read_refusal
from proxy.journey import Journey
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim
from proxy.upstream.exchange import Call, Upstream, UpstreamAnswer, UpstreamUnreachable

LOST = 504  # the status under which a lost answer is counted: Google may have done the work


def ask(call: Call, claim: Claim, ledger: Ledger, upstream: Upstream) -> UpstreamAnswer:
    """Send the request with one key. Give back an attempt that was never sent; count one that may be billed."""
    try:
        return upstream.send(call, claim.secret)
    except UpstreamUnreachable:
        ledger.give_back(claim)
        raise
    except BaseException:  # AnswerLost, or GreenletExit: the client disconnected while Google was working
        ledger.book_answer(claim, LOST)
        raise


def fails_over(claim: Claim, status: int, content: bytes, ledger: Ledger, journey: Journey) -> bool:
    """Tell whether an error is about the key or its project. If so, book it, so that the next claim is another key."""
    if refusal := read_refusal(status, content):
        until = ledger.book_refusal(claim, refusal, project_in(content))
        journey.note_refusal(claim, refusal, until)
        return True
    if fault := read_fault(status, content):
        reason = message_in(content)
        ledger.book_fault(claim, fault, reason, project_in(content))
        journey.note_bad_key(claim, fault, reason)
        return True
    return False
