"""The start and end of a quota day. Pure functions.

Google's daily limits reset at midnight Pacific time (ai.google.dev/gemini-api/docs/rate-limits).
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo


def quota_day(moment: datetime, zone: tzinfo) -> date:
    """Return the quota day of `moment`, which is its date in `zone`. ValueError if `moment` is naive."""
    if moment.tzinfo is None:
        raise ValueError("A quota day needs an aware datetime.")
    return moment.astimezone(zone).date()


def next_reset(moment: datetime, zone: tzinfo) -> datetime:
    """Return the first midnight in `zone` after `moment`, in UTC; at most 25 hours later. ValueError if naive."""
    return day_start(quota_day(moment, zone) + timedelta(days=1), zone)


def day_start(day: date, zone: tzinfo) -> datetime:
    """Return the start of the quota day `day`, in UTC."""
    # In UTC, because subtracting two datetimes of one zone ignores its clock changes.
    return datetime.combine(day, time.min, zone).astimezone(UTC)
