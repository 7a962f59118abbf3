"""The sliding minute of each quota: requests come in with their claim, and leave 60 seconds later.

Every statement runs in a transaction of the ledger, so that all processes and nodes share one window. `Use` has a row
for each tenth of a second in which a quota was used, and quotas carry the sums of theirs.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from django.db.backends.utils import CursorWrapper

from proxy.ledger.clock import SECOND, elapsed_ns
from proxy.models import ExhaustionEvent, GeminiModel, Quota, Use

TENTH = SECOND // 10
# A little more than Google's minute: a request reaches Google after its claim, one sooner than another.
WINDOW = 602  # tenths of a second, from the beginning of the tenth in which it was claimed

_QUOTA, _USE = Quota._meta.db_table, Use._meta.db_table
# A closed quota that something happened to: to be judged by the next claim, or when its rest is over. The moment is
# long past, so that it is due however the clock is set.
_DUE = "CASE WHEN is_open OR is_barred THEN opens_at ELSE COALESCE(cooldown_until, %s) END"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_ADD = (
    f"INSERT INTO {_USE} (quota_id, tenth, requests, tokens) VALUES (%s, %s, %s, %s) ON CONFLICT (quota_id, tenth) "
    f"DO UPDATE SET requests = {_USE}.requests + excluded.requests, tokens = {_USE}.tokens + excluded.tokens"
)
_EXPIRE = f"DELETE FROM {_USE} WHERE tenth <= %s RETURNING quota_id, requests, tokens"
_LEAVE = f"UPDATE {_QUOTA} SET minute_requests = minute_requests - %s, minute_tokens = minute_tokens - %s WHERE id = %s"
_USES = f"SELECT tenth, requests, tokens FROM {_USE} WHERE quota_id = %s ORDER BY tenth"
_TAKE_OUT = f"UPDATE {_USE} SET requests = requests - 1, tokens = tokens - %s WHERE quota_id = %s AND tenth = %s"
_GIVE_BACK = (
    f"UPDATE {_QUOTA} SET minute_requests = minute_requests - %s, minute_tokens = minute_tokens - %s, "
    "day_requests = CASE WHEN day_requests > 0 THEN day_requests - 1 ELSE 0 END, "
    f"opens_at = {_DUE} WHERE id = %s"
)
_CORRECT = f"UPDATE {_USE} SET tokens = tokens + %s WHERE quota_id = %s AND tenth = %s"
_CORRECT_QUOTA = f"UPDATE {_QUOTA} SET minute_tokens = minute_tokens + %s, opens_at = {_DUE} WHERE id = %s"


def now_ns(cursor: CursorWrapper) -> int:
    """Return now by the clock of `Use`: of this machine, or one that several machines have in common."""
    return time.time_ns() if cursor.db.vendor == "postgresql" else elapsed_ns()


def adapt(cursor: CursorWrapper, moment: datetime) -> str | datetime:
    """Return a moment as a parameter of hand-written SQL."""
    adapted: str | datetime = cursor.db.ops.adapt_datetimefield_value(moment)
    return adapted


def add(cursor: CursorWrapper, uses: Sequence[tuple[int, int, int, int]]) -> None:
    """Let requests come in: (quota, tenth, requests, tokens) for each."""
    cursor.executemany(_ADD, uses)


def expire(cursor: CursorWrapper, tenth: int) -> None:
    """Let requests leave the window that are older than a minute at `tenth`."""
    cursor.execute(_EXPIRE, [tenth - WINDOW])
    if not (gone := cursor.fetchall()):
        return
    sums: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    for quota_id, requests, tokens in gone:
        sums[quota_id][0] += requests
        sums[quota_id][1] += tokens
    cursor.executemany(_LEAVE, [(*numbers, quota_id) for quota_id, numbers in sums.items()])


def after_clock_was_set(cursor: CursorWrapper, moment: datetime) -> None:
    """Judge every closed quota anew; end rests of a minute that would begin in the future, and resume those of a day.

    Uses in the future are of before this machine was started, or of another one: they stay for a minute at most.
    """
    ended = ExhaustionEvent.objects.end_those_to_come(moment)
    Quota.objects.recompute([*ended, *ExhaustionEvent.objects.overlooked(moment)], moment)
    cursor.execute(f"UPDATE {_QUOTA} SET opens_at = {_DUE} WHERE NOT is_open", [adapt(cursor, _LONG_AGO)])
    now = now_ns(cursor)
    if Quota.objects.filter(last_used__gt=now).update(last_used=0):
        GeminiModel.objects.update(backs_off_until=0)
    latest = Use.objects.order_by("-tenth").values_list("tenth", flat=True).first() or 0
    if latest > now // TENTH:
        cursor.execute(f"UPDATE {_USE} SET tenth = tenth - %s", [latest - now // TENTH])


def opening(
    cursor: CursorWrapper, quota_id: int, requests_per_minute: int | None, tokens_per_minute: int | None, tokens: int
) -> int | None:
    """Return when the minute has room for a request of so many tokens, by the clock of `Use`; None: never.

    In the past when it has room now; an empty minute takes any request.
    """
    if 0 in (requests_per_minute, tokens_per_minute):
        return None
    cursor.execute(_USES, [quota_id])
    uses = cursor.fetchall()
    requests_left, tokens_left = sum(use[1] for use in uses), sum(use[2] for use in uses)
    opens = 0
    for tenth, requests, its_tokens in uses:
        has_room = requests_per_minute is None or requests_left < requests_per_minute
        if has_room and (tokens_per_minute is None or tokens_left + max(tokens, 1) <= tokens_per_minute):
            break
        requests_left, tokens_left = requests_left - requests, tokens_left - its_tokens
        opens = (tenth + WINDOW) * TENTH
    return opens


def give_back(cursor: CursorWrapper, quota_id: int, tenth: int, tokens: int) -> None:
    """Take a request out of its windows that Google did not count. Once for each."""
    cursor.execute(_TAKE_OUT, [tokens, quota_id, tenth])
    requests, tokens = (1, tokens) if cursor.rowcount else (0, 0)
    cursor.execute(_GIVE_BACK, [requests, tokens, adapt(cursor, _LONG_AGO), quota_id])


def correct(cursor: CursorWrapper, quota_id: int, tenth: int, tokens: int) -> None:
    """Add so many tokens (which may be less than 0) to those estimated for a request, while it is in the window."""
    cursor.execute(_CORRECT, [tokens, quota_id, tenth])
    if cursor.rowcount:
        cursor.execute(_CORRECT_QUOTA, [tokens, adapt(cursor, _LONG_AGO), quota_id])
