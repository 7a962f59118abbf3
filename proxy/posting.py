"""What the ledger writes in one transaction: the counts of bookings, rests, and the turns of claimed keys.

The SQL of the hot path is written by hand, once for SQLite and PostgreSQL: the ORM took a third of a request's time.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, Place, key_label
from proxy.refusals import Refusal, Window


class PoolExhausted(Exception):
    """No key is left for this model. opens_at: when the first comes back; None when none does by itself."""

    def __init__(self, model_name: str, opens_at: datetime | None, *, has_keys: bool) -> None:
        super().__init__(f"No key is left for {model_name}.")
        self.model_name = model_name
        self.opens_at = opens_at
        self.has_keys = has_keys


@dataclass(frozen=True, slots=True)
class Claim:
    """A key, handed out for one try. label: how logs call it. refusals_in_a_row: those for this model before."""

    key_id: int
    label: str
    secret: str = field(repr=False)
    model_name: str
    refusals_in_a_row: int


_PLACE, _KEY, _USAGE = Place._meta.db_table, ApiKey._meta.db_table, DailyUsage._meta.db_table
_HAS_LANE = f"SELECT 1 FROM {_PLACE} WHERE model_name = %s LIMIT 1"
_REOPEN = (
    f"UPDATE {_PLACE} SET is_open = TRUE, rests_until = NULL "
    "WHERE model_name = %s AND NOT is_open AND rests_until <= %s"
)
# select_for_update: on SQLite, which has no row locks, BEGIN IMMEDIATE has taken the write lock already.
_OPEN_PLACES = (
    "SELECT place.id, place.key_id, key.name, key.secret, place.refusals_in_a_row "
    f"FROM {_PLACE} place JOIN {_KEY} key ON key.id = place.key_id "
    "WHERE place.model_name = %s AND place.is_open ORDER BY place.last_used LIMIT %s"
)
_FOR_UPDATE = " FOR UPDATE OF place"
_SKIPPING_LOCKED = _FOR_UPDATE + " SKIP LOCKED"
_LAST_TURN = f"SELECT MAX(last_used) FROM {_PLACE} WHERE model_name = %s AND is_open"
_USE = f"UPDATE {_PLACE} SET last_used = %s WHERE id = %s"


def take_keys(cursor: CursorWrapper, model_name: str, tried: list[set[int]]) -> list[Claim | PoolExhausted]:
    """Claim for each set in `tried` the least recently used key that may be asked for `model_name` and is not in it.

    Two claims share a key only when there are fewer keys than claims. Runs in the ledger's transaction.
    """
    cursor.execute(_HAS_LANE, [model_name])
    lane = model_name if cursor.fetchone() else ""
    database: BaseDatabaseWrapper = cursor.db
    cursor.execute(_REOPEN, [lane, database.ops.adapt_datetimefield_value(datetime.now(UTC))])
    at_most = len(tried) + max(map(len, tried))
    has_row_locks = database.features.has_select_for_update_skip_locked
    cursor.execute(_OPEN_PLACES + _SKIPPING_LOCKED if has_row_locks else _OPEN_PLACES, [lane, at_most])
    places = cursor.fetchall()
    if has_row_locks and len(places) < at_most:  # other nodes hold the rest for a moment, which is not exhaustion
        cursor.execute(_OPEN_PLACES + _FOR_UPDATE, [lane, at_most])
        places = cursor.fetchall()
    turns: dict[int, int] = {}
    cursor.execute(_LAST_TURN, [lane])
    turn = max(time.time_ns() // 1000, cursor.fetchone()[0] or 0)  # the clock may have been set back
    claims: list[Claim | PoolExhausted] = []
    for excluded in tried:
        place = next((place for place in places if place[1] not in excluded), None)
        if place is None:
            # Open ones are left only when this caller has tried them all: they may be asked again at once.
            retry_now = PoolExhausted(model_name, datetime.now(UTC), has_keys=True)
            claims.append(retry_now if places else _pool_exhausted(model_name, lane))
            continue
        places.remove(place)
        places.append(place)
        place_id, key_id, name, secret, refusals_in_a_row = place
        turn += 1
        turns[place_id] = turn
        claims.append(Claim(key_id, key_label(key_id, name, secret), secret, model_name, refusals_in_a_row))
    cursor.executemany(_USE, [(turn, place_id) for place_id, turn in turns.items()])
    return claims


def _pool_exhausted(model_name: str, lane: str) -> PoolExhausted:
    closed = Place.objects.filter(model_name=lane, is_open=False, rests_until__isnull=False)
    opens_at = closed.order_by("rests_until").values_list("rests_until", flat=True).first()
    return PoolExhausted(model_name, opens_at, has_keys=ApiKey.objects.usable().exists())


def write_rest(claim: Claim, refusal: Refusal, moment: datetime, until: datetime | None) -> None:
    """Write that a quota ran out, and close the places it concerns."""
    key = ApiKey.objects.get(id=claim.key_id)
    is_whole_key = refusal.window is Window.CREDITS
    ExhaustionEvent.objects.record(key, "" if is_whole_key else claim.model_name, refusal, moment, until)
    if not is_whole_key:
        Place.objects.add_lane(claim.model_name)
    Place.objects.rebuild(ApiKey.objects.sharing_quota_with([key]), moment)
    if refusal.window is Window.UNKNOWN:
        place = Place.objects.filter(key=key, model_name=claim.model_name)
        place.update(refusals_in_a_row=min(claim.refusals_in_a_row + 1, 30))


_COUNTERS = tuple(
    field.name for field in DailyUsage._meta.concrete_fields if field.name not in ("id", "key", "model_name", "day")
)
_ADD_USAGE = (
    f"INSERT INTO {_USAGE} (key_id, model_name, day, {', '.join(_COUNTERS)}) "
    f"VALUES ({', '.join(['%s'] * (3 + len(_COUNTERS)))}) ON CONFLICT (key_id, model_name, day) "
    f"DO UPDATE SET {', '.join(f'{name} = {_USAGE}.{name} + excluded.{name}' for name in _COUNTERS)}"
)


def add_usage(cursor: CursorWrapper, counts: Mapping[tuple[int, str, date], Mapping[str, int]]) -> None:
    """Add counts to rows of DailyUsage, given by key, model and day; rows that are missing are made."""
    rows: list[tuple[int | str, ...]] = [
        (key_id, model_name, day.isoformat(), *(numbers.get(name, 0) for name in _COUNTERS))
        # In a fixed order, so that two nodes on PostgreSQL never wait for each other in a circle.
        for (key_id, model_name, day), numbers in sorted(counts.items(), key=lambda item: item[0])
    ]
    cursor.executemany(_ADD_USAGE, rows)
