"""START HERE: the life of one request, top to bottom.

A client sends a request. We claim a key that has quota left for the model, waiting for one if necessary, and forward
the request with it. On a 429, the key's project is rate-limited or exhausted, and we fail over to the next key. When
Google rejects the key itself, the key leaves the rotation with the reason, and we fail over too. A server error is
retried twice; after a 503 (overloaded), the whole pool backs off from that model for a moment. Anything else is the
answer: we count it first, then stream it to the client byte for byte, and read its token counts on the way.

Files, caches and the like belong to one Google project. A request that names one gets a key of that project
(`resources.py`), and a list has those of all projects (`lists.py`).
"""

import time

from proxy.answer import Answer, CountedBody
from proxy.attempt import ask, fails_over
from proxy.gemini.refusals import project_in
from proxy.journey import DeadlineExceeded, Journey
from proxy.ledger import Ledger
from proxy.ledger.claims import UnknownResource
from proxy.lists import list_all
from proxy.resources import book, find_owner
from proxy.upstream.exchange import Call, Upstream, UpstreamUnreachable

TROUBLED = {500, 503, 504}


def relay(call: Call, *, ledger: Ledger, upstream: Upstream, journey: Journey) -> Answer:
    """Answer `call` with the first key that the upstream accepts.

    Raises PoolExhausted when no key is left, UpstreamUnreachable or AnswerLost when there is no answer,
    DeadlineExceeded when failing over took too long, LedgerUnavailable when the database did not accept a claim or a
    booking.
    """
    if call.target.is_list and call.method == "GET":
        return list_all(call, ledger=ledger, upstream=upstream, journey=journey)
    while journey.has_time:
        try:
            claim = journey.next_claim(call, ledger)
        except UnknownResource as unknown:
            find_owner(unknown.name, ledger, upstream, journey)
            continue
        try:
            answer = ask(call, claim, ledger, upstream)
            journey.note_answer(answer.status)
        except UpstreamUnreachable:
            if (pause := journey.next_pause()) is None:
                raise
            time.sleep(pause)
            continue
        if answer.status >= 400 and call.can_repeat:
            if fails_over(claim, answer.status, answer.content, ledger, journey):
                answer.close()
                continue
            can_retry = answer.status in TROUBLED and call.target.is_repeatable
            if can_retry and (pause := journey.next_pause()):
                answer.close()
                ledger.book_answer(claim, answer.status)
                time.sleep(pause)
                continue
            if project := project_in(answer.content):
                ledger.book_project(claim, project)
        book(call, claim, answer, ledger)
        return Answer(answer.status, answer.headers, CountedBody(answer, claim, ledger))
    raise DeadlineExceeded(call.model_name)
