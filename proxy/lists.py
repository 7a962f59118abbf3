"""Lists of resources, such as files, of all Google projects together. No Django.

Google lists the resources of one project. We ask one project after the other until a page is full. Where the next page
continues is in a page token of ours, which names the projects that are done.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from proxy.answer import Answer, CountedBody
from proxy.attempt import ask, fails_over
from proxy.journey import DeadlineExceeded, Journey
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim, PoolExhausted
from proxy.resources import book
from proxy.upstream.exchange import Call, Upstream, UpstreamAnswer

_USUAL_PAGE = 50
# Projects in a row that have nothing, before the list ends. Those that are known to have something come first.
_MOST_EMPTY = 20
_TOKEN_NAMES = ("pageToken", "page_token")


class BadPageToken(ValueError):
    """The page token is not one of ours. The message is for the client."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins."""

    # Ids of projects that have been listed.
    done: frozenset[int] = frozenset()
    # The id of the project that is being listed, and Google's token for its next page; 0 and "" before the first.
    project_id: int = 0
    token: str = ""

    @classmethod
    def read(cls, text: str) -> "Place":
        """Return the place in a page token of ours. Raises BadPageToken."""
        if not text:
            return cls()
        try:
            done, project_id, token = json.loads(urlsafe_b64decode(text.encode()))
            return cls(frozenset(map(int, done)), int(project_id), str(token))
        except (ValueError, TypeError):
            raise BadPageToken("The page token is not valid. Start with the first page.") from None

    def __str__(self) -> str:
        return urlsafe_b64encode(json.dumps([sorted(self.done), self.project_id, self.token]).encode()).decode()


class Page(NamedTuple):
    """One project's answer, and its place."""

    claim: Claim
    answer: UpstreamAnswer
    # None if the answer is an error.
    document: dict[str, Any] | None
    begins_at: str

    @property
    def size(self) -> int:
        return sum(len(items) for _, items in _lists(self.document or {}))


def list_all(call: Call, *, ledger: Ledger, upstream: Upstream, journey: Journey) -> Answer:
    """Answer a request for a list with the lists of all projects, one page at a time.

    Raises BadPageToken, and what `relay` raises.
    """
    query = parse_qsl(call.target.path.partition("?")[2])
    place = Place.read(next((value for name, value in query if name in _TOKEN_NAMES), ""))
    sizes = [value for name, value in query if name in ("pageSize", "page_size", "limit")]
    most = int(sizes[0]) if sizes and re.fullmatch(r"[1-9][0-9]{0,3}", sizes[0]) else _USUAL_PAGE
    merged: dict[str, Any] = {}
    size, last = 0, None
    for page in _pages(place, call, ledger, upstream, journey):
        if last and (page.document is None or (page.size and size >= most)):
            page.answer.close()
            if page.document is None:
                continue
            merged["nextPageToken"] = page.begins_at
            break
        if page.document is None:
            return Answer(page.answer.status, page.answer.headers, CountedBody(page.answer, page.claim, ledger))
        if last:
            last.answer.close()
        last = page
        _merge(merged, page.document)
        size += page.size
    if last is None:
        raise DeadlineExceeded(call.model_name)
    if merged != last.document:  # otherwise it is passed on byte for byte
        last.answer.replace_body(json.dumps(merged, ensure_ascii=False).encode())
    return Answer(last.answer.status, last.answer.headers, CountedBody(last.answer, last.claim, ledger))


def _pages(place: Place, call: Call, ledger: Ledger, upstream: Upstream, journey: Journey) -> Iterator[Page]:
    """Yield the pages of all projects from a place on. Each answer must be closed. A refused project is left out."""
    path, _, text = call.target.path.partition("?")
    query = [pair for pair in parse_qsl(text, keep_blank_values=True) if pair[0] not in _TOKEN_NAMES]
    kind = path.rstrip("/").rpartition("/")[2]
    has_any, empty = False, 0
    while journey.has_time and empty < _MOST_EMPTY:
        asked = [*query, ("pageToken", place.token)] if place.token else query
        one = replace(call, target=replace(call.target, path=f"{path}?{urlencode(asked)}" if asked else path))
        try:
            claim = journey.next_claim(one, ledger, project_id=place.project_id, done=place.done, looks_for=kind)
        except PoolExhausted:
            if place.project_id:  # it has no usable key any more
                place = Place(place.done | {place.project_id})
                continue
            if not has_any:
                raise
            return
        answer = ask(one, claim, ledger, upstream)
        journey.note_answer(answer.status)
        if fails_over(claim, answer.status, answer.content, ledger, journey):
            answer.close()
            if answer.status == 429:
                place = Place(place.done | {claim.project_id})
            continue
        book(one, claim, answer, ledger)
        document = _document(answer)
        begins_at = str(place)
        if token := str((document or {}).get("nextPageToken") or ""):
            place = Place(place.done, claim.project_id, token)
        else:
            place = Place(place.done | {claim.project_id})
        has_any = True
        page = Page(claim, answer, document, begins_at)
        empty = 0 if page.size else empty + 1
        yield page


def _document(answer: UpstreamAnswer) -> dict[str, Any] | None:
    try:
        page = json.loads(answer.content) if answer.status == 200 else None
    except (ValueError, RecursionError):
        return None
    return page if isinstance(page, dict) else None


def _lists(page: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    return ((name, value) for name, value in page.items() if isinstance(value, list))


def _merge(merged: dict[str, Any], page: dict[str, Any]) -> None:
    """Add a page to those before it. What is no list, such as OpenAI's `object`, is that of the first page."""
    for name, items in _lists(page):
        merged.setdefault(name, []).extend(items)
    for name, value in page.items():
        if name not in ("nextPageToken", "has_more", "last_id"):
            merged.setdefault(name, value)
    if "has_more" in page:
        merged["has_more"] = False
        merged["last_id"] = merged["data"][-1].get("id") if merged.get("data") else None
