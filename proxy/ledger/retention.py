"""Prunes the history, a little with each transaction of the ledger: deletes old log rows, sums up old hours by day."""

from datetime import UTC, datetime, timedelta, tzinfo

from django.contrib.admin.models import LogEntry
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from proxy.gemini.quota_day import quota_day
from proxy.ledger.leases import DEAD_AFTER_SECONDS
from proxy.ledger.minute_window import adapt
from proxy.ledger.summed_tables import addition_to, identity_of, numbers_of
from proxy.models import (
    FirstByte,
    FirstByteDay,
    KeyHour,
    LedgerWriter,
    LoggedRequest,
    ModelDay,
    ModelHour,
    Quota,
    Resource,
)
from proxy.models.history import ACTIVITY_DAYS, FIRST_BYTE_HOURS_DAYS, HOURS_DAYS

_LOG = LoggedRequest._meta.db_table
_DELETE_LOGGED = f"DELETE FROM {_LOG} WHERE id IN (SELECT id FROM {_LOG} WHERE began < %s ORDER BY began LIMIT 2000)"

_ACTIVITY = LogEntry._meta.db_table
# There is no index on their time, but their ids are in the order of time.
_DELETE_ACTIVITY = (
    f"DELETE FROM {_ACTIVITY} WHERE id IN (SELECT id FROM {_ACTIVITY} ORDER BY id LIMIT 20) AND action_time < %s"
)

_RESOURCE = Resource._meta.db_table
_EXPIRED = f"SELECT id FROM {_RESOURCE} WHERE expires_at < %s ORDER BY expires_at LIMIT 200"
_DELETE_RESOURCES = f"DELETE FROM {_RESOURCE} WHERE id IN ({_EXPIRED})"

_WRITER = LedgerWriter._meta.db_table
_DELETE_WRITERS = (
    f"DELETE FROM {_WRITER} WHERE committed_at < %s OR (has_turns AND committed_at < %s) RETURNING has_turns"
)


def prune(cursor: CursorWrapper, moment: datetime, log_days: float, zone: tzinfo) -> None:
    """Prune a few rows that are too old; frequent calls prune them all.

    zone: the time zone of quota days. Hours of keys need no sum by day, since DailyUsage has it.
    """
    cursor.execute(_DELETE_LOGGED, [adapt(cursor, moment - timedelta(days=log_days))])
    cursor.execute(_DELETE_ACTIVITY, [adapt(cursor, moment - timedelta(days=ACTIVITY_DAYS))])
    cursor.execute(_DELETE_RESOURCES, [adapt(cursor, moment)])
    dead = moment - timedelta(seconds=DEAD_AFTER_SECONDS)
    cursor.execute(_DELETE_WRITERS, [adapt(cursor, moment - timedelta(days=1)), adapt(cursor, dead)])
    if any(has_turns for [has_turns] in cursor.fetchall()):
        Quota.objects.recount()
    for hours, days, kept in (
        (ModelHour, ModelDay, HOURS_DAYS),
        (FirstByte, FirstByteDay, FIRST_BYTE_HOURS_DAYS),
        (KeyHour, None, HOURS_DAYS),
    ):
        hour = _oldest(cursor, hours)
        if hour and hour < moment - timedelta(days=kept):
            if days:
                cursor.execute(_summing_up(hours, days), [quota_day(hour, zone).isoformat(), adapt(cursor, hour)])
            cursor.execute(f"DELETE FROM {hours._meta.db_table} WHERE hour = %s", [adapt(cursor, hour)])


def _oldest(cursor: CursorWrapper, hours: type[Model]) -> datetime | None:
    cursor.execute(f"SELECT MIN(hour) FROM {hours._meta.db_table}")
    [hour] = cursor.fetchone()
    if isinstance(hour, str):  # SQLite's form
        return datetime.fromisoformat(hour).replace(tzinfo=UTC)
    found: datetime | None = hour
    return found


def _summing_up(hours: type[Model], days: type[Model]) -> str:
    """Return the statement that adds the rows of an hour to those of its day. Parameters: the day, the hour."""
    _day, *names = identity_of(days)
    columns = ", ".join(["%s", *names, *numbers_of(days)])
    return addition_to(days, f"SELECT {columns} FROM {hours._meta.db_table} WHERE hour = %s")
