"""A quota as a claim sees it, and the rules that say whether it may be taken. Pure, but for the names of columns."""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

# A project that accepted more requests than this in a minute has shown that it has no small limit of tokens.
_FEW_REQUESTS = 32

# The parameter is today.
COLUMNS = (
    "id, project_id, room, last_used, minute_requests, minute_tokens, COALESCE(day = %s, FALSE), day_requests, "
    "requests_per_minute, input_tokens_per_minute, requests_per_day, "
    "learned_requests_per_minute, learned_input_tokens_per_minute, learned_requests_per_day, "
    "most_in_a_minute, refusals_in_a_row"
)


class Key(NamedTuple):
    """A usable key of a project."""

    id: int
    name: str
    secret: str


@dataclass(slots=True)
class QuotaState:
    """A quota as a claim sees it, in the order of `COLUMNS`; the names are those of `Quota`.

    is_of_today: what its day says; it is of an earlier one if not. keys: those that may be taken.
    """

    id: int
    project_id: int
    room: int
    last_used: int
    minute_requests: int
    minute_tokens: int
    is_of_today: bool
    day_requests: int
    set_requests_per_minute: int | None
    set_tokens_per_minute: int | None
    set_requests_per_day: int | None
    learned_requests_per_minute: int | None
    learned_tokens_per_minute: int | None
    learned_requests_per_day: int | None
    most_in_a_minute: int
    refusals_in_a_row: int
    keys: list[Key] = field(default_factory=list)

    @property
    def requests_per_minute(self) -> int | None:
        limit = self.set_requests_per_minute
        return self.learned_requests_per_minute if limit is None else limit

    @property
    def tokens_per_minute(self) -> int | None:
        limit = self.set_tokens_per_minute
        return self.learned_tokens_per_minute if limit is None else limit

    @property
    def requests_per_day(self) -> int | None:
        limit = self.set_requests_per_day
        return self.learned_requests_per_day if limit is None else limit

    @property
    def is_day_spent(self) -> bool:
        limit = self.requests_per_day
        return limit is not None and self.day_requests >= limit

    @property
    def is_minute_spent(self) -> bool:
        requests, tokens = self.requests_per_minute, self.tokens_per_minute
        is_full = requests is not None and self.minute_requests >= requests
        return is_full or (tokens is not None and self.minute_tokens >= tokens)

    @property
    def rank(self) -> tuple[int, int, int]:
        """The order of claims: most room first, then least recently used.

        Room below 0 counts unproven requests in flight, so they spread over the quotas with the fewest.
        """
        return -self.room, self.last_used, self.id

    def lacks_tokens_for(self, tokens: int) -> bool:
        """Tell whether the minute has too few left; an empty one takes any request."""
        limit = self.tokens_per_minute
        return limit is not None and self.minute_requests > 0 and self.minute_tokens + tokens > limit

    def room_for(self, tokens: int) -> int:
        """Return how many requests of so many tokens are left: a large one goes where it takes the smaller share."""
        limit = self.tokens_per_minute
        return self.room if limit is None else min(self.room, (limit - self.minute_tokens) // max(tokens, 1))

    def next_key(self, tried: Set[int]) -> Key | None:
        """Return the key whose turn it is, of those that were not tried."""
        count = len(self.keys)
        turns = (self.keys[(self.day_requests + number) % count] for number in range(count))
        return next((key for key in turns if key.id not in tried), None)

    def spend(self, tokens: int) -> None:
        """Count a request that is claimed now in its minute; the day counts it anyway."""
        self.minute_requests += 1
        self.minute_tokens += tokens
        self.room -= 1

    @property
    def is_unproven(self) -> bool:
        """Tell whether the last request is one more than this quota ever accepted, while its limit is unknown."""
        return self.requests_per_minute is None and self.minute_requests > self.most_in_a_minute

    @property
    def minds_tokens(self) -> bool:
        """Tell whether true numbers of tokens matter: a limit is known, or may still show up."""
        return self.tokens_per_minute is not None or self.most_in_a_minute <= _FEW_REQUESTS

    @property
    def disproved(self) -> tuple[str, ...]:
        """The limits that Google told and that are wrong if the last request is accepted; by the names of fields."""
        found = []
        if (limit := self.learned_requests_per_minute) is not None and self.minute_requests > limit:
            found.append("learned_requests_per_minute")
        is_alone = self.minute_requests == 1  # an empty minute takes any request
        if (limit := self.learned_tokens_per_minute) is not None and self.minute_tokens > limit and not is_alone:
            found.append("learned_input_tokens_per_minute")
        if (limit := self.learned_requests_per_day) is not None and self.day_requests > limit:
            found.append("learned_requests_per_day")
        return tuple(found)
