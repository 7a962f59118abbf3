"""Decides which key a request gets, in the ledger's transaction.

The project with the most proven room comes first. Proven room is what is left of a known limit, or of the most requests
that the project ever accepted in a minute. When no project has proven room left, requests go to the projects with
unknown limits that have the fewest in flight, and never wait. The keys of a project take turns. No claim exceeds a
known limit.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush

from proxy.ledger.backoff import pause_ns
from proxy.ledger.claims import Claim, ClaimRequest, Overloaded, PoolExhausted, ProjectExhausted
from proxy.ledger.leases import LIFETIME, Demand
from proxy.ledger.quota_state import Key, QuotaState
from proxy.ledger.rotation import LoadedRotation
from proxy.models import ApiKey, key_label

# After this many waves of overload in a row, one request at a time probes whether the overload is over.
_WAVES_BEFORE_PROBING = 3
# How much longer a leased turn stays in the window, in tenths of a second.
_LEASED_TENTHS = math.ceil(LIFETIME * 10)
_SPARE = 1  # quotas loaded beyond the number of requests, since some may lack tokens


class Scheduler:
    """Grants claims from a rotation that was just loaded. Times are nanoseconds by the clock of `Use`."""

    def __init__(self, rotation: LoadedRotation) -> None:
        self._rotation = rotation
        self._candidates: dict[int, QuotaState] = {}
        self._heap: list[tuple[int, int, int]] = []
        self._first_in_line: int | None = None
        # Leased turns.
        self.turns: list[Claim] = []

    def grant(self, claim_requests: Sequence[ClaimRequest], lease: Demand) -> list[Claim | PoolExhausted]:
        """Return for each request a claim or the reason why there is none; first come, first served.

        lease: how many turns to lease, if there are plenty.
        """
        self._see_more(len(claim_requests) + lease.turns + _SPARE)
        results = [self._serve(claim_request) for claim_request in claim_requests]
        if all(isinstance(result, Claim) for result in results):
            self._lease(lease)
        self._rotation.write()
        is_served = all(isinstance(result, Claim | Overloaded) for result in results)
        first_opening = None if is_served else self._rotation.first_opening()
        return [
            result if isinstance(result, Claim | Overloaded) else self._no_key(claim_request, result, first_opening)
            for claim_request, result in zip(claim_requests, results, strict=True)
        ]

    def _lease(self, lease: Demand) -> None:
        rotation = self._rotation
        if rotation.is_new or rotation.overloads or not rotation.has_windows:
            return
        expected = ClaimRequest(rotation.asked_for, lease.tokens)
        while len(self.turns) < lease.turns and self._heap:
            quota = self._candidates[self._heap[0][2]]
            rotation.count_day(quota)
            if not quota.has_plenty or (key := quota.next_key(frozenset())) is None:
                return
            heappop(self._heap)
            # It can arrive at Google later than other claims, so it leaves the window later.
            self.turns.append(self._take(quota, key, expected, tenths_later=_LEASED_TENTHS))

    def _see_more(self, count: int) -> None:
        for quota in self._rotation.more(count):
            self._see(quota)

    def _see(self, quota: QuotaState) -> None:
        if quota.id not in self._candidates:
            self._candidates[quota.id] = quota
            heappush(self._heap, quota.rank)

    def _serve(self, claim_request: ClaimRequest) -> Claim | Overloaded | int | None:
        """Return a claim, or the time when an open quota will have room, or None when no open quota can serve it."""
        rotation = self._rotation
        if rotation.now < rotation.backs_off_until <= rotation.by_our_clock(claim_request.deadline):
            return Overloaded(claim_request.model_name, rotation.moment_of(rotation.backs_off_until))
        if claim_request.owner is not None:
            return self._pick_in(claim_request.owner.project_id, claim_request)
        if claim_request.home is not None:
            found = self._pick_in(claim_request.home, claim_request)
            if isinstance(found, Claim):
                return found
        patience = rotation.by_our_clock(claim_request.gives_up_at)
        if self._first_in_line is not None and self._first_in_line <= patience:
            return self._first_in_line  # an earlier, larger request is waiting for room
        found = self._pick(claim_request)
        if isinstance(found, Claim):
            if rotation.overloads >= _WAVES_BEFORE_PROBING:
                rotation.back_off(claim_request.model_name, rotation.now + pause_ns(rotation.overloads))
        elif found is not None and rotation.now < found <= patience:
            self._first_in_line = found
        return found

    def _pick_in(self, project_id: int, claim_request: ClaimRequest) -> Claim | int | None:
        """Claim from a project; otherwise return when it will have room, or None if it has none by itself."""
        quota = next((quota for quota in self._candidates.values() if quota.project_id == project_id), None)
        if quota is None:
            if (quota := self._rotation.of_project(project_id)) is None:
                return self._rotation.opening_of_project(project_id)
            self._see(quota)
        self._rotation.count_day(quota)
        tokens = claim_request.tokens or 0
        if quota.is_day_spent or quota.is_minute_spent or quota.lacks_tokens_for(tokens):
            return self._rotation.opening_of(quota, tokens)
        wanted = {claim_request.owner.key_id} - claim_request.tried if claim_request.owner else set()
        key = next((key for key in quota.keys if key.id in wanted), None) or quota.next_key(claim_request.tried)
        if key is None:
            return self._rotation.now if quota.keys else None
        self._heap = [entry for entry in self._heap if entry[2] != quota.id]
        heapify(self._heap)
        return self._take(quota, key, claim_request)

    def _pick(self, claim_request: ClaimRequest) -> Claim | int | None:
        """Claim from the quota with the most room; otherwise return when one will have room, or None as in `_serve`."""
        passed_over: list[tuple[int, int, int]] = []
        openings: list[int] = []
        best: tuple[int, QuotaState, Key] | None = None
        tokens, now = claim_request.tokens or 0, self._rotation.now
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
            if quota.project_id in claim_request.tried_projects:
                continue
            if (key := quota.next_key(claim_request.tried)) is None:
                openings.append(now)  # available, but this request has tried its keys
            elif quota.lacks_tokens_for(tokens):
                openings.extend(filter(None, [self._rotation.opening_of(quota, tokens)]))
            elif best is None or quota.room_for(tokens) > best[0]:
                best = quota.room_for(tokens), quota, key
        for entry in passed_over:
            if best is None or entry[2] != best[1].id:
                heappush(self._heap, entry)
        if best:
            return self._take(best[1], best[2], claim_request)
        later = [moment for moment in openings if moment > now]
        return min(later or openings, default=None)

    def _take(self, quota: QuotaState, key: Key, claim_request: ClaimRequest, tenths_later: int = 0) -> Claim:
        rotation = self._rotation
        tenth = rotation.take(quota, key, claim_request.tokens or 0, tenths_later)
        if quota.is_day_spent or quota.is_minute_spent:
            rotation.close(quota)
        else:
            heappush(self._heap, quota.rank)
        return Claim(
            key_id=key.id,
            label=key_label(key.id, key.name, key.secret),
            secret=key.secret,
            model_name=claim_request.model_name,
            rotation_name=rotation.name,
            quota_id=quota.id,
            project_id=quota.project_id,
            is_new_model=rotation.is_new,
            tenth=tenth,
            tokens=claim_request.tokens or 0,
            corrects_tokens=rotation.has_windows and quota.minds_tokens,
            has_token_limit=quota.input_tokens_per_minute is not None,
            in_minute=quota.minute_requests,
            is_unproven=quota.is_unproven,
            disproves=quota.disproved,
            is_last_of_day=quota.is_day_spent,
            refusals_in_a_row=quota.refusals_in_a_row,
            overloads=rotation.overloads,
        )

    def _no_key(self, claim_request: ClaimRequest, found: int | None, first_opening: datetime | None) -> PoolExhausted:
        """Return why no key is left, and when the next one is available."""
        moment = self._rotation.moment
        owner = claim_request.owner
        openings = [None if owner else first_opening, None if found is None else self._rotation.moment_of(found)]
        opens_at = min((opens for opens in openings if opens and opens > moment), default=None)
        are_tried = opens_at is None and found is not None
        if are_tried:
            opens_at = moment
        usable = ApiKey.objects.usable()
        if owner is None:
            has_keys = opens_at is not None or usable.exists()
            return PoolExhausted(claim_request.model_name, opens_at, has_keys=has_keys, are_tried=are_tried)
        has_keys = usable.filter(project_id=owner.project_id).exists()
        exhausted = ProjectExhausted(claim_request.model_name, opens_at, has_keys=has_keys, are_tried=are_tried)
        exhausted.resource = min(claim_request.resources, default="")
        return exhausted
