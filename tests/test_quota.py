"""The start and end of a quota day."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.gemini.quota_day import day_start, next_reset, quota_day

PACIFIC = ZoneInfo("America/Los_Angeles")
# Far from UTC on both sides, odd offsets, and clocks that change at midnight itself or by half an hour.
ZONES = [
    PACIFIC,
    *(ZoneInfo(name) for name in ("UTC", "Asia/Shanghai", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Chatham")),
    *(ZoneInfo(name) for name in ("America/Santiago", "America/Havana", "Asia/Beirut", "Africa/Cairo")),
    *(ZoneInfo(name) for name in ("Australia/Lord_Howe", "Europe/Berlin", "America/Asuncion")),
]
MOMENTS = st.floats(1.735e9, 2.05e9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))  # 2025 to 2034
SPRING, AUTUMN = datetime(2026, 3, 8, 10, 0, tzinfo=UTC), datetime(2026, 11, 1, 9, 0, tzinfo=UTC)


@given(moment=MOMENTS, zone=st.sampled_from(ZONES))
@example(moment=SPRING, zone=PACIFIC)
@example(moment=AUTUMN, zone=PACIFIC)
@settings(max_examples=200, deadline=None)
def test_the_next_reset_is_the_first_moment_of_another_day(moment: datetime, zone: ZoneInfo) -> None:
    reset = next_reset(moment, zone)

    assert next_reset(moment.astimezone(zone), zone) == reset
    assert moment < reset <= moment + timedelta(hours=25)
    assert reset.utcoffset() == timedelta(0)
    assert quota_day(reset, zone) > quota_day(moment, zone)
    assert quota_day(reset - timedelta(microseconds=1), zone) == quota_day(moment, zone)


@given(first=MOMENTS, second=MOMENTS, zone=st.sampled_from(ZONES))
@settings(max_examples=100, deadline=None)
def test_days_follow_each_other_as_moments_do(first: datetime, second: datetime, zone: ZoneInfo) -> None:
    earlier, later = sorted([first, second])

    assert quota_day(earlier, zone) <= quota_day(later, zone)


@given(day=st.dates(date(2025, 1, 1), date(2035, 1, 1)), zone=st.sampled_from(ZONES))
@settings(max_examples=100, deadline=None)
def test_days_divide_time_without_a_gap(day: date, zone: ZoneInfo) -> None:
    start = day_start(day, zone)

    assert quota_day(start, zone) == day
    assert quota_day(start - timedelta(microseconds=1), zone) == day - timedelta(days=1)
    assert next_reset(start, zone) == day_start(day + timedelta(days=1), zone)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 3, 8), 23), (date(2026, 11, 1), 25), (date(2026, 11, 24), 24), (date(2028, 2, 29), 24)],
)
def test_a_day_lasts_as_long_as_californian_clocks_say(day: date, hours: int) -> None:
    start = day_start(day, PACIFIC)

    assert next_reset(start, PACIFIC) - start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 11, 24, 7, 59, 59, 999_999, tzinfo=UTC), date(2026, 11, 23)),
        (datetime(2026, 11, 24, 8, 0, tzinfo=UTC), date(2026, 11, 24)),
        (datetime(2026, 7, 1, 6, 59, tzinfo=UTC), date(2026, 6, 30)),
        (datetime(2026, 7, 1, 7, 0, tzinfo=UTC), date(2026, 7, 1)),
        (datetime(2026, 11, 24, 9, 0, tzinfo=ZoneInfo("Asia/Shanghai")), date(2026, 11, 23)),
    ],
)
def test_a_quota_day_is_a_date_in_california(moment: datetime, day: date) -> None:
    assert quota_day(moment, PACIFIC) == day


def test_a_moment_without_a_zone_is_a_mistake() -> None:
    naive = datetime(2026, 11, 24)  # noqa: DTZ001

    with pytest.raises(ValueError, match="aware"):
        quota_day(naive, PACIFIC)
    with pytest.raises(ValueError, match="aware"):
        next_reset(naive, PACIFIC)
