"""The sliding minute of each quota: a request enters with its claim and leaves 60 seconds later.

Every statement runs in a transaction of the ledger, so all processes and nodes share one window. `Use` has a row for
each tenth of a second in which a quota was used, and `Quota` holds the sums of its rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from django.db.backends.utils import CursorWrapper

from proxy.ledger.clock import SECOND
from proxy.models import ExhaustionEvent, GeminiModel, Quota, Use

TENTH = SECOND // 10
# Tenths of a second, from the start of the tenth in which the request was claimed. A little more than Google's minute,
# since the time from claim to arrival at Google varies.
WINDOW = 602

_QUOTA, _USE = Quota._meta.db_table, Use._meta.db_table
# When a closed quota that has changed is due: at the next claim, or at the end of its cooldown. The parameter is a
# moment long past, so that the quota is due even after the clock was set back.
_DUE = "CASE WHEN is_open OR is_barred THEN opens_at ELSE COALESCE(cooldown_until, %s) END"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_ADD = (
    f"INSERT INTO {_USE} (quota_id, tenth, requests, tokens) VALUES (%s, %s, %s, %s) ON CONFLICT (quota_id, tenth) "
    f"DO UPDATE SET requests = {_USE}.requests + excluded.requests, tokens = {_USE}.tokens + excluded.tokens"
)
_EXPIRE = f"DELETE FROM {_USE} WHERE tenth <= %s RETURNING quota_id, requests, tokens"
# SQLite cannot do both in one statement, and on PostgreSQL each result that is read costs a round trip under the lock.
_EXPIRE_ON_SERVER = (
    f"WITH gone AS ({_EXPIRE}), sums AS (SELECT quota_id, SUM(requests) AS requests, SUM(tokens) AS tokens FROM gone "
    f"GROUP BY quota_id) UPDATE {_QUOTA} SET minute_requests = minute_requests - sums.requests, "
    f"minute_tokens = minute_tokens - sums.tokens FROM sums WHERE {_QUOTA}.id = sums.quota_id"
)
_LEAVE = f"UPDATE {_QUOTA} SET minute_requests = minute_requests - %s, minute_tokens = minute_tokens - %s WHERE id = %s"
_USES = f"SELECT tenth, requests, tokens FROM {_USE} WHERE quota_id = %s ORDER BY tenth"
_TAKE_OUT = f"UPDATE {_USE} SET requests = requests - %s, tokens = tokens - %s WHERE quota_id = %s AND tenth = %s"
_IS_IN_WINDOW = f"EXISTS (SELECT 1 FROM {_USE} WHERE quota_id = %s AND tenth = %s)"
_LEAVE_EARLY = f"{_LEAVE} AND {_IS_IN_WINDOW}"
_GIVE_BACK = (
    f"UPDATE {_QUOTA} SET day_requests = CASE WHEN day_requests > %s THEN day_requests - %s ELSE 0 END, "
    f"opens_at = {_DUE} WHERE id = %s"
)
_CORRECT = f"UPDATE {_USE} SET tokens = tokens + %s WHERE quota_id = %s AND tenth = %s"
_CORRECT_QUOTA = (
    f"UPDATE {_QUOTA} SET minute_tokens = minute_tokens + %s, opens_at = {_DUE} WHERE id = %s AND {_IS_IN_WINDOW}"
)


def adapt(cursor: CursorWrapper, moment: datetime) -> str | datetime:
    """Return a moment as a parameter of hand-written SQL."""
    adapted: str | datetime = cursor.db.ops.adapt_datetimefield_value(moment)
    return adapted


def add(cursor: CursorWrapper, uses: Sequence[tuple[int, ...]]) -> None:
    """Add (quota id, tenth, requests, tokens) rows to the windows."""
    cursor.executemany(_ADD, uses)


def expire(cursor: CursorWrapper, tenth: int) -> None:
    """Remove the requests that are older than a minute at `tenth`."""
    if cursor.db.vendor == "postgresql":
        cursor.execute(_EXPIRE_ON_SERVER, [tenth - WINDOW])
        return
    cursor.execute(_EXPIRE, [tenth - WINDOW])
    if not (gone := cursor.fetchall()):
        return
    sums: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    for quota_id, requests, tokens in gone:
        sums[quota_id][0] += requests
        sums[quota_id][1] += tokens
    cursor.executemany(_LEAVE, [(*numbers, quota_id) for quota_id, numbers in sums.items()])


def after_clock_was_set(cursor: CursorWrapper, moment: datetime, now: int) -> None:
    """Recheck every closed quota; end cooldowns by the minute that start in the future, and resume those by the day.

    now: the time by the clock of `Use`. Uses in the future date from before the last boot, or from another machine.
    They stay for a minute at most.
    """
    ended = ExhaustionEvent.objects.end_future_cooldowns(moment)
    Quota.objects.recompute([*ended, *ExhaustionEvent.objects.overlooked(moment)], moment)
    cursor.execute(f"UPDATE {_QUOTA} SET opens_at = {_DUE} WHERE NOT is_open", [adapt(cursor, _LONG_AGO)])
    if Quota.objects.filter(last_used__gt=now).update(last_used=0):
        GeminiModel.objects.update(backs_off_until=0)
    latest = Use.objects.order_by("-tenth").values_list("tenth", flat=True).first() or 0
    if latest > now // TENTH:
        cursor.execute(f"UPDATE {_USE} SET tenth = tenth - %s", [latest - now // TENTH])


def opening(
    cursor: CursorWrapper, quota_id: int, requests_per_minute: int | None, tokens_per_minute: int | None, tokens: int
) -> int | None:
    """Return when the minute has room for a request of this many tokens, by the clock of `Use`; None if it never has.

    The result is in the past when there is room now. An empty minute takes any request.
    """
    if 0 in (requests_per_minute, tokens_per_minute):
        return None
    cursor.execute(_USES, [quota_id])
    uses = cursor.fetchall()
    requests_left, tokens_left = sum(use[1] for use in uses), sum(use[2] for use in uses)
    opens = 0
    for tenth, used_requests, used_tokens in uses:
        has_room = requests_per_minute is None or requests_left < requests_per_minute
        if has_room and (tokens_per_minute is None or tokens_left + max(tokens, 1) <= tokens_per_minute):
            break
        requests_left, tokens_left = requests_left - used_requests, tokens_left - used_tokens
        opens = (tenth + WINDOW) * TENTH
    return opens


def give_back(cursor: CursorWrapper, quota_id: int, tenth: int, requests: int, tokens: int) -> None:
    """Remove requests that Google did not count from their windows. Call it once per request."""
    cursor.execute(_LEAVE_EARLY, [requests, tokens, quota_id, quota_id, tenth])
    cursor.execute(_TAKE_OUT, [requests, tokens, quota_id, tenth])
    cursor.execute(_GIVE_BACK, [requests, requests, adapt(cursor, _LONG_AGO), quota_id])


def correct(cursor: CursorWrapper, corrections: Iterable[tuple[int, int, int]]) -> None:
    """Correct the estimated tokens of requests by (quota id, tenth, tokens), while they are in the window."""
    due = adapt(cursor, _LONG_AGO)
    rows = sorted(corrections)
    cursor.executemany(_CORRECT_QUOTA, [(tokens, due, quota_id, quota_id, tenth) for quota_id, tenth, tokens in rows])
    cursor.executemany(_CORRECT, [(tokens, quota_id, tenth) for quota_id, tenth, tokens in rows])
