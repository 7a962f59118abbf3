"""The answer for the client, whose tokens are counted while it is streamed. No Django."""

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.gemini.credentials import Headers
from proxy.gemini.tokens import TokenMeter
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim
from proxy.upstream.exchange import UpstreamAnswer


class CountedBody:
    """The body of an answer, byte for byte. Its tokens are booked when it is closed, even if it is cut off."""

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
        """End the exchange and book the tokens so far. Calling it twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        self._answer.close()
        self._ledger.book_tokens(self._claim, self.meter.tokens)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for the client. The holder must iterate over `body` and close it."""

    status: int
    headers: Headers
    body: CountedBody
