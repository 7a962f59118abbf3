"""One attempt to answer a request with one key."""

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
