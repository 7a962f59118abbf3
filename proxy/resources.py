"""Resources of Google projects, such as files: whose they are is learned from answers, and looked up. No Django."""

import re
from contextlib import closing
from urllib.parse import urlsplit

from proxy.attempt import LOST, ask, fails_over
from proxy.gemini.resources import expiries_of, resources_in_answer, strings_in, upload_of
from proxy.gemini.target import read_target
from proxy.journey import Journey
from proxy.ledger import Ledger
from proxy.ledger.claims import NOTHING_LEARNED, Claim, ClaimRequest, Learned, PoolExhausted
from proxy.models import NO_MODEL
from proxy.upstream.exchange import AnswerLost, Call, Upstream, UpstreamAnswer

_MOST_PROJECTS = 20  # asked for a resource that was not made here
_IS_READ = re.compile(r"(?:application/json|text/event-stream)\b", re.IGNORECASE)
_UPLOAD_HEADERS = {"x-goog-upload-url", "x-goog-upload-control-url"}


def book(call: Call, claim: Claim, answer: UpstreamAnswer, ledger: Ledger) -> Learned:
    """Count an answer, and store what it shows about resources, before it is passed on.

    Raises AnswerLost when it breaks off while it is read, LedgerUnavailable.
    """
    try:
        learned = _learn(call, answer, ledger)
    except BaseException as exc:  # GreenletExit: the client disconnected
        answer.close()
        ledger.book_answer(claim, LOST)
        if isinstance(exc, OSError):
            message = "The Gemini API closed the connection in the middle of its answer."
            raise AnswerLost(message, is_timeout=isinstance(exc, TimeoutError)) from exc
        raise
    try:
        ledger.book_answer(claim, answer.status, learned)
    except BaseException:
        answer.close()
        raise
    return learned


def _learn(call: Call, answer: UpstreamAnswer, ledger: Ledger) -> Learned:
    """Return what an answer shows about resources. Reads as much of its body as that takes. Raises OSError."""
    if not call.target.names_resources or answer.status >= 300:
        return NOTHING_LEARNED
    if call.method == "DELETE":
        return Learned(deleted=call.target.resource)
    if _IS_READ.match(answer.content_type):
        answer.read_ahead()
    strings = strings_in(answer.content)
    names = resources_in_answer(strings, call.target.path)
    if call.base_url:
        names |= _redirect_upload(answer, call.base_url)
    return Learned(expiries_of(names, strings, ledger.moment()), call.creator if names else "")


def _redirect_upload(answer: UpstreamAnswer, base_url: str) -> set[str]:
    """Let an upload that has begun continue here. Return its name."""
    names = set()
    for place, (name, value) in enumerate(answer.headers):
        if name.lower() in _UPLOAD_HEADERS:
            url = urlsplit(value)
            path = f"{url.path}?{url.query}"
            answer.headers[place] = name, base_url + path
            names.add(upload_of(path))
    return names - {""}


def find_owner(name: str, ledger: Ledger, upstream: Upstream, journey: Journey) -> None:
    """Ask one project after the other for a resource, and store which has it, or that none has.

    Projects that are known to own some of its kind come first.

    Raises PoolExhausted when there is nobody to ask, UpstreamUnreachable, AnswerLost, LedgerUnavailable.
    """
    kind = name.partition("/")[0]
    call = Call("GET", read_target(f"/v1beta/{name}", has_bearer=False), [], None, 0, NO_MODEL)
    asked: set[int] = set()
    claim: Claim | None = None
    while len(asked) < _MOST_PROJECTS and journey.has_time:
        try:
            claim, _ = ledger.claim(ClaimRequest(NO_MODEL, None, looks_for=kind, tried_projects=frozenset(asked)))
        except PoolExhausted:
            if claim is None:
                raise
            break
        with closing(ask(call, claim, ledger, upstream)) as answer:
            if fails_over(claim, answer.status, answer.content, ledger, journey):
                continue
            learned = book(call, claim, answer, ledger)
        if name in learned.expiries:
            return
        asked.add(claim.project_id)
    if claim is not None:
        ledger.remember_nobody(claim, name)
