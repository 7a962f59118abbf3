"""What a report is about: a period, and optionally one model, project or key."""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo

from proxy.gemini.quota_day import day_start, quota_day

HOUR = timedelta(hours=1)
DAYS = {"7d": 7, "28d": 28, "90d": 90}
LONGEST_DAYS = 800
_MOST_SLOTS = 120


@dataclass(frozen=True, slots=True)
class Period:
    """A period of whole hours or whole quota days, for all requests or those of one model, project or key."""

    # "24h", "7d", "28d", "90d" or "custom".
    name: str
    # UTC.
    since: datetime
    # UTC, exclusive.
    until: datetime
    # Quota days, both inclusive.
    first: date
    last: date
    zone: tzinfo
    # "" for all.
    model_name: str = ""
    # 0 for all.
    project_id: int = 0
    key_id: int = 0

    @classmethod
    def ending(cls, moment: datetime, name: str, zone: tzinfo, **of: str | int) -> "Period":
        """Return the last 24 hours, or the last days up to and including today."""
        today = quota_day(moment, zone)
        if name == "24h":
            until = moment.replace(minute=0, second=0, microsecond=0) + HOUR
            since = until - 24 * HOUR
            return cls(name, since, until, quota_day(since, zone), today, zone, **of)  # type: ignore[arg-type]
        return cls.of_days(today - timedelta(days=DAYS[name] - 1), today, zone, name=name, **of)

    @classmethod
    def of_days(cls, first: date, last: date, zone: tzinfo, name: str = "custom", **of: str | int) -> "Period":
        """Return the quota days from `first` to `last`."""
        until = day_start(last + timedelta(days=1), zone)
        return cls(name, day_start(first, zone), until, first, last, zone, **of)  # type: ignore[arg-type]

    @property
    def has_keys(self) -> bool:
        """Tell whether it is about one key or project."""
        return bool(self.key_id or self.project_id)

    @property
    def is_hourly(self) -> bool:
        """Tell whether its slots are hours. The models of a key are known only by the day."""
        return self.name == "24h" and not (self.has_keys and self.model_name)

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def before(self) -> "Period":
        """Return the period of the same length before this one."""
        if self.name == "24h":
            since = self.since - 24 * HOUR
            first, last = quota_day(since, self.zone), quota_day(self.since - HOUR, self.zone)
            return replace(self, since=since, until=self.since, first=first, last=last)
        length = timedelta(days=self.days)
        first, last = self.first - length, self.last - length
        return replace(self, since=day_start(first, self.zone), until=self.since, first=first, last=last)

    @property
    def slot_days(self) -> int:
        """How many days a slot has, unless it is an hour: 1, or 7 for periods too long to show every day."""
        return 1 if self.days <= _MOST_SLOTS else 7

    def slots(self) -> list[datetime] | list[date]:
        """Return its hours, its quota days, or the first days of its weeks."""
        return [self.since + number * HOUR for number in range(24)] if self.is_hourly else self.day_slots()

    def day_slots(self) -> list[date]:
        """Return its quota days, or the first days of its weeks. The last week may be shorter."""
        return [self.first + timedelta(days=number) for number in range(0, self.days, self.slot_days)]

    def slot_of(self, hour: datetime) -> datetime | date:
        """Return the slot of an hour."""
        return hour if self.is_hourly else self.slot_of_day(quota_day(hour, self.zone))

    def slot_of_day(self, day: date) -> date:
        """Return the slot of a quota day."""
        return day - timedelta(days=(day - self.first).days % self.slot_days)
