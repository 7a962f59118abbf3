"""What the client gets: an answer whose body is counted while it passes. No Django."""

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.gemini.credentials import Headers
from proxy.gemini.tokens import TokenMeter
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim
from proxy.upstream.exchange import UpstreamAnswer


class CountedBody:
    """The body of an answer, byte for byte, with its tokens booked at the end, however it ends."""

    def __init__(self, answer: UpstreamAnswer, claim: Claim, ledger: Ledger) -> None:
        self._answer = answer
        self._claim = claim
        self._ledger = ledger
        self.meter = TokenMeter(answer.content_encoding)
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._answer:
            self.meter.feed(piece)
            yield piece

    def close(self) -> None:
        """End the exchange and book the tokens seen so far; harmless twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._answer.close()
        self._ledger.book_tokens(self._claim, self.meter.tokens)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets. Whoever holds it iterates over it and closes it."""

    status: int
    headers: Headers
    body: CountedBody
