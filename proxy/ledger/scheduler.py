"""A round of claims: which key is taken for a request, decided in the ledger's transaction.

Of the projects that may be asked for the model, the one with the most proven room is taken: what is left of a known
limit, or of what the project accepted in a minute before. Where no proven room is left, requests with unknown limits
spread over the projects with the fewest of them in flight, and never wait. Keys of a project take turns. A claim that
would pass a known limit is not made.
"""

from collections.abc import Sequence
from datetime import datetime
from heapq import heappop, heappush

from proxy.ledger.claims import Claim, Overloaded, PoolExhausted, Wish
from proxy.ledger.clock import SECOND
from proxy.ledger.quota_state import Candidate, Key
from proxy.ledger.rotation import FoundRotation
from proxy.models import ApiKey, key_label

# After so many waves of overload in a row, one request at a time goes to see whether it is over.
_WAVES_BEFORE_PROBING = 3
_SPARE = 1  # quotas looked at beyond the number of wishes: some are short of tokens


def pause_ns(overloads: int) -> int:
    """Return for how long nobody asks for a model after so many waves of overload in a row: 0.25 s to 8 s."""
    return min(SECOND // 8 << min(overloads, 16), 8 * SECOND)


class Claiming:
    """One round of claims from one rotation; times are nanoseconds by its clock. Used once."""

    def __init__(self, rotation: FoundRotation) -> None:
        self._rotation = rotation
        self._candidates: dict[int, Candidate] = {}
        self._heap: list[tuple[int, int, int]] = []
        self._first_in_line: int | None = None

    def grant(self, wishes: Sequence[Wish]) -> list[Claim | PoolExhausted]:
        """Return for each wish a claim, first come first served, or why there is none."""
        self._see_more(len(wishes) + _SPARE)
        results = [self._serve(wish) for wish in wishes]
        self._rotation.write()
        is_served = all(isinstance(result, Claim | Overloaded) for result in results)
        first_opening = None if is_served else self._rotation.first_opening()
        return [
            result if isinstance(result, Claim | Overloaded) else self._no_key(wish, result, first_opening)
            for wish, result in zip(wishes, results, strict=True)
        ]

    def _see_more(self, count: int) -> None:
        for quota in self._rotation.more(count):
            self._candidates[quota.id] = quota
            heappush(self._heap, quota.rank)

    def _serve(self, wish: Wish) -> Claim | Overloaded | int | None:
        """Return a claim, or when an open quota has room for this wish; None when no open one is any good to it."""
        rotation = self._rotation
        if rotation.now < rotation.backs_off_until <= rotation.by_our_clock(wish.deadline):
            return Overloaded(wish.model_name, rotation.moment_of(rotation.backs_off_until))
        patience = rotation.by_our_clock(wish.gives_up_at)
        if self._first_in_line is not None and self._first_in_line <= patience:
            return self._first_in_line  # somebody came earlier, and waits until there is room for a large request
        found = self._pick(wish)
        if isinstance(found, Claim):
            if rotation.overloads >= _WAVES_BEFORE_PROBING:
                rotation.back_off(wish.model_name, rotation.now + pause_ns(rotation.overloads))
        elif found is not None and rotation.now < found <= patience:
            self._first_in_line = found
        return found

    def _pick(self, wish: Wish) -> Claim | int | None:
        """Take the quota with most left for this wish; or return when one has room, None when none is any good."""
        passed_over: list[tuple[int, int, int]] = []
        openings: list[int] = []
        best: tuple[int, Candidate, Key] | None = None
        tokens, now = wish.tokens or 0, self._rotation.now
        while best is None or (self._heap and best[0] < -self._heap[0][0]):
            if not self._heap and not self._rotation.are_all_seen:
                self._see_more(len(self._candidates))
            if not self._heap:
                break
            entry = heappop(self._heap)
            quota = self._candidates[entry[2]]
            self._rotation.count_day(quota)
            if quota.is_day_spent:
                self._rotation.close(quota)
                continue
            passed_over.append(entry)
            if (key := quota.next_key(wish.tried)) is None:
                openings.append(now)  # it could be asked again at once, only not by this one
            elif quota.lacks_tokens_for(tokens):
                openings.extend(filter(None, [self._rotation.opening_of(quota, tokens)]))
            elif best is None or quota.room_for(tokens) > best[0]:
                best = quota.room_for(tokens), quota, key
        for entry in passed_over:
            if best is None or entry[2] != best[1].id:
                heappush(self._heap, entry)
        if best:
            return self._take(best[1], best[2], wish)
        later = [moment for moment in openings if moment > now]
        return min(later or openings, default=None)

    def _take(self, quota: Candidate, key: Key, wish: Wish) -> Claim:
        rotation = self._rotation
        rotation.take(quota, key, wish.tokens or 0)
        if quota.is_day_spent or quota.is_minute_spent:
            rotation.close(quota)
        else:
            heappush(self._heap, quota.rank)
        return Claim(
            key_id=key.id,
            label=key_label(key.id, key.name, key.secret),
            secret=key.secret,
            model_name=wish.model_name,
            rotation_name=rotation.name,
            quota_id=quota.id,
            is_new_model=rotation.is_new,
            tenth=rotation.tenth,
            tokens=wish.tokens or 0,
            corrects_tokens=rotation.has_windows and quota.minds_tokens,
            in_minute=quota.minute_requests,
            is_unproven=quota.is_unproven,
            disproves=quota.disproved,
            is_last_of_day=quota.is_day_spent,
            refusals_in_a_row=quota.refusals_in_a_row,
            overloads=rotation.overloads,
        )

    def _no_key(self, wish: Wish, found: int | None, first_opening: datetime | None) -> PoolExhausted:
        """Return why there is none: the soonest opening, or none of itself, or no usable key at all."""
        moment = self._rotation.moment
        openings = [first_opening, None if found is None else self._rotation.moment_of(found)]
        opens_at = min((opens for opens in openings if opens and opens > moment), default=None)
        are_tried = opens_at is None and found is not None
        if are_tried:
            opens_at = moment
        has_keys = opens_at is not None or ApiKey.objects.usable().exists()
        return PoolExhausted(wish.model_name, opens_at, has_keys=has_keys, are_tried=are_tried)
