"""Turns that are claimed ahead of the requests they are for, so that a claim need not be a transaction of its own.

A turn is a claim like any other: its transaction counts it as used, so that no known limit is ever exceeded. Under
load, the transactions lease as many turns as requests came in a quarter of a second, and requests take them from
memory. What nobody has taken after a quarter of a second is given back.
"""

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple

from proxy.ledger.claims import Claim, ClaimRequest

# For how many seconds a turn can be taken.
LIFETIME = 0.25
# After so many seconds without a commit, others take the process for dead, and count again what its turns have used.
DEAD_AFTER_SECONDS = 10
# Fewer requests than this in a quarter of a second lease nothing.
BUSY = 3
_MOST_TURNS = 256
_MOST_MODELS = 100


class Demand(NamedTuple):
    """How many turns to lease for a model, and the input tokens of each."""

    turns: int
    tokens: int


class _Stock:
    """The turns of a model, and how many requests it had lately."""

    def __init__(self) -> None:
        # The oldest first, each with the time when it expires.
        self.turns: deque[tuple[float, Claim]] = deque()
        # The current quarter of a second, its requests, and those of the one before.
        self.period, self.requests, self.requests_before = 0, 0, 0
        # The input tokens of the largest of these requests.
        self.tokens = 0
        # When turns were leased last.
        self.leased_in = 0

    def note(self, period: int, tokens: int = 0, requests: int = 0) -> None:
        if period != self.period:
            self.requests_before = self.requests if period == self.period + 1 else 0
            self.period, self.requests = period, 0
            self.tokens = self.tokens if self.requests_before else 0
        self.requests += requests
        self.tokens = max(self.tokens, tokens)


class Leases:
    """The turns that this process holds. Safe to share between threads."""

    def __init__(self) -> None:
        self._stocks: dict[str, _Stock] = {}

    def __len__(self) -> int:
        return sum(len(stock.turns) for stock in self._stocks.values())

    def take(self, claim_request: ClaimRequest) -> Claim | None:
        """Return a turn that fits the request, if there is one. Call it once for each claim: it measures the demand."""
        if claim_request.tokens is None or not claim_request.takes_any_key:
            return None
        now = monotonic()
        if (stock := self._stocks.get(claim_request.model_name)) is None:
            if len(self._stocks) >= _MOST_MODELS:  # clients may ask for models that do not exist
                self._stocks = {name: stock for name, stock in list(self._stocks.items()) if stock.turns}
            stock = self._stocks.setdefault(claim_request.model_name, _Stock())
        stock.note(int(now / LIFETIME), claim_request.tokens, 1)
        try:
            expires_at, claim = turn = stock.turns.popleft()
        except IndexError:
            return None
        if now < expires_at and claim_request.tokens <= claim.tokens and claim.key_id not in claim_request.tried:
            return claim
        stock.turns.appendleft(turn)
        return None

    def demand(self, model_name: str) -> Demand:
        """Return how many turns to lease now."""
        if (stock := self._stocks.get(model_name)) is None:
            return Demand(0, 0)
        stock.note(int(monotonic() / LIFETIME))
        wanted = min(stock.requests_before, _MOST_TURNS) if stock.requests_before >= BUSY else 0
        return Demand(max(0, wanted - len(stock.turns)), stock.tokens)

    @property
    def are_wanted(self) -> bool:
        """Tell whether turns are held, or will be leased by a transaction that begins now."""
        return len(self) > 0 or any(self.demand(name).turns for name in list(self._stocks))

    def running_low(self) -> list[str]:
        """Return the models that need more turns now, each once in a quarter of a second."""
        names = []
        for name, stock in list(self._stocks.items()):
            if self.demand(name).turns > len(stock.turns) and stock.leased_in != stock.period:
                stock.leased_in = stock.period
                names.append(name)
        return names

    def add(self, turns: Sequence[Claim]) -> None:
        """Add turns whose transaction has been committed."""
        expires_at = monotonic() + LIFETIME
        for claim in turns:
            self._stocks.setdefault(claim.model_name, _Stock()).turns.append((expires_at, claim))

    def seconds_to_expiry(self) -> float | None:
        """Return in how many seconds the first turn expires; None when there are none."""
        times = [turn[0] for stock in list(self._stocks.values()) for turn in list(stock.turns)[:1]]
        return max(0.0, min(times) - monotonic()) if times else None

    def remove_expired(self) -> list[Claim]:
        """Remove and return the turns that nobody can take any more."""
        now = monotonic()
        return self._remove(lambda expires_at, _: expires_at <= now)

    def clear(self) -> list[Claim]:
        """Remove and return all turns, and forget the demand, so that no more are leased."""
        stocks, self._stocks = self._stocks, {}
        return [claim for stock in stocks.values() for _, claim in stock.turns]

    def remove(self, is_concerned: Callable[[Claim], bool]) -> list[Claim]:
        """Remove and return turns, such as those of a key that is refused."""
        return self._remove(lambda _, claim: is_concerned(claim))

    def _remove(self, is_meant: Callable[[float, Claim], bool]) -> list[Claim]:
        removed: list[Claim] = []
        for stock in list(self._stocks.values()):
            for _ in range(len(stock.turns)):
                try:
                    turn = stock.turns.popleft()
                except IndexError:  # a request was faster
                    break
                if is_meant(*turn):
                    removed.append(turn[1])
                else:
                    stock.turns.append(turn)
        return removed
