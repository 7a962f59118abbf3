"""A quota during a claim, and the rules that decide whether it has room. Pure, apart from the column names."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import NamedTuple, Self

# A project that has accepted more requests than this in a minute has no small token limit.
_FEW_REQUESTS = 32

# The SQL expression for each field of QuotaState. Its one parameter is today's date.
_EXPRESSIONS = {
    "id": "id",
    "project_id": "project_id",
    "room": "room",
    "last_used": "last_used",
    "minute_requests": "minute_requests",
    "minute_tokens": "minute_tokens",
    "is_of_today": "COALESCE(day = %s, FALSE)",
    "day_requests": "day_requests",
    # A limit that was set wins over a learned one, as in `limit_in_force` of `models/quotas.py`.
    "requests_per_minute": "COALESCE(requests_per_minute, learned_requests_per_minute)",
    "input_tokens_per_minute": "COALESCE(input_tokens_per_minute, learned_input_tokens_per_minute)",
    "requests_per_day": "COALESCE(requests_per_day, learned_requests_per_day)",
    "learned_requests_per_minute": "learned_requests_per_minute",
    "learned_input_tokens_per_minute": "learned_input_tokens_per_minute",
    "learned_requests_per_day": "learned_requests_per_day",
    "most_in_a_minute": "most_in_a_minute",
    "refusals_in_a_row": "refusals_in_a_row",
}
COLUMNS = ", ".join(_EXPRESSIONS.values())


class Key(NamedTuple):
    """A usable key of a project."""

    id: int
    name: str
    secret: str


@dataclass(slots=True)
class QuotaState:
    """A quota during a claim. The fields without a comment are columns of `Quota`."""

    id: int
    project_id: int
    room: int
    last_used: int
    minute_requests: int
    minute_tokens: int
    # `day_requests` is about today; otherwise it is about an earlier day.
    is_of_today: bool
    day_requests: int
    # The limits in force, None where unknown.
    requests_per_minute: int | None
    input_tokens_per_minute: int | None
    requests_per_day: int | None
    learned_requests_per_minute: int | None
    learned_input_tokens_per_minute: int | None
    learned_requests_per_day: int | None
    most_in_a_minute: int
    refusals_in_a_row: int
    # The project's usable keys.
    keys: list[Key] = field(default_factory=list)

    @classmethod
    def from_row(cls, row: Iterable[object]) -> Self:
        """Return the quota in a row of `COLUMNS`."""
        return cls(**dict(zip(_EXPRESSIONS, row, strict=True)))  # type: ignore[arg-type]  # as the database types them

    @property
    def is_day_spent(self) -> bool:
        limit = self.requests_per_day
        return limit is not None and self.day_requests >= limit

    @property
    def is_minute_spent(self) -> bool:
        requests, tokens = self.requests_per_minute, self.input_tokens_per_minute
        is_full = requests is not None and self.minute_requests >= requests
        return is_full or (tokens is not None and self.minute_tokens >= tokens)

    @property
    def has_plenty(self) -> bool:
        """Tell whether turns may be leased: Google accepts them, and nobody will miss them.

        Every known limit is less than half used. Where the limit of requests is unknown, there is proven room:
        otherwise another process might learn the limit, and this one would exceed it with turns that it already has.
        """
        if self.requests_per_minute is None and self.minute_requests >= self.most_in_a_minute:
            return False
        known = (
            (self.requests_per_minute, self.minute_requests),
            (self.input_tokens_per_minute, self.minute_tokens),
            (self.requests_per_day, self.day_requests),
        )
        return not self.refusals_in_a_row and all(limit is None or 2 * used < limit for limit, used in known)

    @property
    def rank(self) -> tuple[int, int, int]:
        """The sort key of claims: most room first, then least recently used.

        Negative room counts unproven requests in flight, so that these spread over the quotas with the fewest.
        """
        return -self.room, self.last_used, self.id

    def lacks_tokens_for(self, tokens: int) -> bool:
        """Tell whether the minute has too few tokens left. An empty minute takes any request."""
        limit = self.input_tokens_per_minute
        return limit is not None and self.minute_requests > 0 and self.minute_tokens + tokens > limit

    def room_for(self, tokens: int) -> int:
        """Return how many requests of this size are left. A large one goes where it takes the smallest share."""
        limit = self.input_tokens_per_minute
        return self.room if limit is None else min(self.room, (limit - self.minute_tokens) // max(tokens, 1))

    def next_key(self, tried: Set[int]) -> Key | None:
        """Return the key whose turn it is, skipping those in `tried`."""
        count = len(self.keys)
        turns = (self.keys[(self.day_requests + number) % count] for number in range(count))
        return next((key for key in turns if key.id not in tried), None)

    def spend(self, tokens: int) -> None:
        """Count a new request in the minute. (The day counts it in any case.)"""
        self.minute_requests += 1
        self.minute_tokens += tokens
        self.room -= 1

    @property
    def is_unproven(self) -> bool:
        """Tell whether the limit is unknown and the last request is one more than this quota ever accepted."""
        return self.requests_per_minute is None and self.minute_requests > self.most_in_a_minute

    @property
    def minds_tokens(self) -> bool:
        """Tell whether exact token counts matter: a limit is known, or there may be one."""
        return self.input_tokens_per_minute is not None or self.most_in_a_minute <= _FEW_REQUESTS

    @property
    def disproved(self) -> tuple[str, ...]:
        """The learned limits that are wrong if the last request is accepted, as names of `Quota` fields."""
        found = []
        if (limit := self.learned_requests_per_minute) is not None and self.minute_requests > limit:
            found.append("learned_requests_per_minute")
        is_alone = self.minute_requests == 1  # an empty minute takes any request
        limit = self.learned_input_tokens_per_minute
        if limit is not None and self.minute_tokens > limit and not is_alone:
            found.append("learned_input_tokens_per_minute")
        if (limit := self.learned_requests_per_day) is not None and self.day_requests > limit:
            found.append("learned_requests_per_day")
        return tuple(found)
