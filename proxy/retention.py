"""How long history is kept in detail. Old rows leave bit by bit, in the ledger's transactions."""

from datetime import UTC, datetime, timedelta, tzinfo

from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from proxy.models import FirstByte, FirstByteDay, KeyHour, LoggedRequest
from proxy.quota import quota_day
from proxy.windows import adapt

KEY_HOURS_DAYS = 35
FIRST_BYTE_HOURS_DAYS = 3  # more than the pages show by the hour
_LOG = LoggedRequest._meta.db_table
_DELETE_LOGGED = f"DELETE FROM {_LOG} WHERE id IN (SELECT id FROM {_LOG} WHERE began < %s ORDER BY began LIMIT 500)"
_DAYS = FirstByteDay._meta.db_table
_SUM_UP = (
    f"INSERT INTO {_DAYS} (day, model_name, step, answers) "
    f"SELECT %s, model_name, step, answers FROM {FirstByte._meta.db_table} WHERE hour = %s "
    f"ON CONFLICT (day, model_name, step) DO UPDATE SET answers = {_DAYS}.answers + excluded.answers"
)


def prune(cursor: CursorWrapper, moment: datetime, log_days: float, zone: tzinfo) -> None:
    """Delete or sum up a few rows that have been kept for long enough; called often enough, all of them.

    zone: of quota days.
    """
    cursor.execute(_DELETE_LOGGED, [adapt(cursor, moment - timedelta(days=log_days))])
    if hour := _oldest_hour(cursor, FirstByte, moment - timedelta(days=FIRST_BYTE_HOURS_DAYS)):
        cursor.execute(_SUM_UP, [quota_day(hour, zone).isoformat(), adapt(cursor, hour)])
        _delete_hour(cursor, FirstByte, hour)
    if hour := _oldest_hour(cursor, KeyHour, moment - timedelta(days=KEY_HOURS_DAYS)):
        _delete_hour(cursor, KeyHour, hour)


def _oldest_hour(cursor: CursorWrapper, model: type[Model], before: datetime) -> datetime | None:
    """Return the oldest hour in a table, if it is older than that."""
    cursor.execute(f"SELECT MIN(hour) FROM {model._meta.db_table}")
    [hour] = cursor.fetchone()
    if isinstance(hour, str):  # as SQLite has it
        hour = datetime.fromisoformat(hour).replace(tzinfo=UTC)
    return hour if hour and hour < before else None


def _delete_hour(cursor: CursorWrapper, model: type[Model], hour: datetime) -> None:
    cursor.execute(f"DELETE FROM {model._meta.db_table} WHERE hour = %s", [adapt(cursor, hour)])
