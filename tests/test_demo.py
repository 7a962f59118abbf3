"""The sample pool: its rows are consistent, its keys cannot be real, and it never mixes with a real pool."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db.models import F, Sum
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from proxy.dashboard.reports import today
from proxy.dashboard.reports.period import Period
from proxy.dashboard.reports.traffic import first_byte_steps
from proxy.demo import Plan, fill
from proxy.gemini.quota_day import day_start
from proxy.models import (
    ApiKey,
    DailyUsage,
    ExhaustionEvent,
    FirstByte,
    FirstByteDay,
    KeyHour,
    LoggedRequest,
    ModelHour,
    Outcome,
    Quota,
)
from proxy.pool.adding import add_keys
from proxy.security.masking import KEY_SHAPE
from tests.conftest import fake_secret

ROWS = (ApiKey, DailyUsage, ExhaustionEvent, FirstByte, FirstByteDay, KeyHour, LoggedRequest, ModelHour, Quota)


def demo(*options: str) -> str:
    output = StringIO()
    call_command("demo", "--days", "12", "--log-rows", "300", *options, stdout=output)
    return output.getvalue()


def counts() -> list[int]:
    return [model._default_manager.count() for model in ROWS]


@pytest.fixture
def moment(transactional_db: None) -> Iterator[datetime]:
    """An afternoon: a day that has just begun would have too little usage."""
    with time_machine.travel(datetime(2027, 3, 18, 22, 40, tzinfo=UTC), tick=False):
        yield timezone.now()


@pytest.mark.usefixtures("moment")
def test_it_reports_what_it_created_and_where_to_see_it() -> None:
    output = demo()

    assert "40 sample keys" in output
    assert "/dashboard/" in output
    assert "DEMO" not in output


@pytest.mark.usefixtures("moment")
def test_no_key_is_a_key_of_google() -> None:
    demo()

    secrets = list(ApiKey.objects.values_list("secret", flat=True))
    assert len(set(secrets)) == 40
    assert all(secret and KEY_SHAPE.fullmatch(secret) and secret[4:8] == "DEMO" for secret in secrets)


def test_the_hours_of_each_day_add_up_to_what_its_keys_did(moment: datetime) -> None:
    demo()

    day = today(moment)
    for _ in range(12):
        begin, end = (day_start(each, settings.QUOTA_ZONE) for each in (day, day + timedelta(days=1)))
        usage = DailyUsage.objects.filter(day=day)
        hours = ModelHour.objects.filter(hour__gte=begin, hour__lt=end)
        keys = KeyHour.objects.filter(hour__gte=begin, hour__lt=end)
        of_models = hours.aggregate(
            answers=Sum("at_once") + Sum("after_fail_over") + Sum("failed"),
            errors=Sum("failed"),
            prompt=Sum("prompt_tokens"),
            output=Sum("output_tokens"),
        )
        numbers = {"answers": Sum("answers"), "errors": Sum("errors")}
        of_day = usage.aggregate(**numbers, prompt=Sum("prompt_tokens"), output=Sum("output_tokens"))
        steps = first_byte_steps(Period.of_days(day, day, settings.QUOTA_ZONE)).values()
        assert of_day["answers"]
        assert of_models == of_day
        refusals = Sum("refusals")
        assert keys.aggregate(**numbers, r=refusals) == usage.aggregate(**numbers, r=refusals)
        assert sum(map(Counter.total, steps)) == of_day["answers"] - of_day["errors"]
        day -= timedelta(days=1)
    assert not ModelHour.objects.filter(hour__gt=moment).exists()
    assert not KeyHour.objects.filter(errors__gt=F("answers")).exists()


def test_the_usage_of_projects_today_matches_that_of_their_keys(moment: datetime) -> None:
    demo()

    for quota in Quota.objects.of_models():
        usage = DailyUsage.objects.filter(key__project=quota.project, model_name=quota.model_name, day=today(moment))
        assert (quota.day, quota.day_requests) == (today(moment), usage.aggregate(n=Sum("answers"))["n"] or 0)
        limit = quota.learned_requests_per_day
        assert limit is None or quota.day_requests <= limit


def test_some_are_exhausted_some_bad_some_disabled(moment: datetime) -> None:
    demo()

    assert ExhaustionEvent.objects.in_force(moment).filter(window="day").count() >= 3
    assert ExhaustionEvent.objects.filter(until__lte=moment).exists()
    assert not ExhaustionEvent.objects.filter(since__gt=moment).exists()
    assert ApiKey.objects.bad().count() == 2
    assert ApiKey.objects.filter(is_enabled=False, fault="").exists()
    spent = ExhaustionEvent.objects.in_force(moment).filter(window="day")[0]
    assert Quota.objects.get(project=spent.project, model_name=spent.model_name).cooldown_until == spent.until


def test_bad_sample_keys_are_never_checked_with_google(moment: datetime) -> None:
    demo()

    assert ApiKey.objects.take_due_checks(moment + timedelta(days=365)) == []


def test_the_log_reaches_from_a_week_ago_to_now(moment: datetime) -> None:
    demo()

    began = list(LoggedRequest.objects.order_by("began").values_list("began", flat=True))
    assert len(began) == 300
    assert moment - timedelta(days=7) <= began[0] < moment - timedelta(days=5)
    assert moment - timedelta(minutes=2) < began[-1] <= moment
    failed_over = LoggedRequest.objects.filter(outcome=Outcome.AFTER_FAIL_OVER)
    assert all(len(row.attempts) > 1 and row.attempts[-1] == [row.key_id, 200] for row in failed_over)


@pytest.mark.usefixtures("moment")
def test_each_page_can_be_looked_at() -> None:
    demo()
    client = Client()
    client.force_login(User.objects.create_superuser("somebody"))
    key = ApiKey.objects.bad()[0]

    names = ("overview", "keys", "exhaustion", "models", "requests", "activity", "health")
    paths = [*(reverse(f"proxy:{name}") for name in names), reverse("proxy:key", args=[key.pk])]
    for path in paths:
        for query in ("", "?range=28d", f"?key={key.pk}", "?format=json"):
            assert client.get(path + query).status_code == 200, path + query


@pytest.mark.usefixtures("moment")
def test_a_second_run_refuses_and_changes_nothing() -> None:
    demo()
    before = counts()

    with pytest.raises(CommandError, match="already"):
        demo()
    assert counts() == before


def test_one_real_key_is_enough_to_refuse(moment: datetime) -> None:
    add_keys([fake_secret("real")], moment)

    with pytest.raises(CommandError, match="already"):
        demo()
    assert ApiKey.objects.count() == 1
    assert not DailyUsage.objects.exists()


@pytest.mark.parametrize("option", [("--keys", "0"), ("--keys", "x"), ("--days", "801"), ("--log-rows", "-1")])
def test_numbers_that_make_no_sense_are_reported(transactional_db: None, option: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match="whole number"):
        demo(*option)


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Kolkata"])
@pytest.mark.parametrize("minutes", [0, 5, 20, 45])
def test_it_works_at_the_beginning_of_a_day_and_with_few_keys(
    transactional_db: None, zone: str, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "QUOTA_ZONE", ZoneInfo(zone))
    moment = day_start(date(2027, 11, 8), settings.QUOTA_ZONE) + timedelta(minutes=minutes)

    made = fill(Plan(keys=2, days=3, log_rows=5), moment, seed=7)

    assert (made.keys, LoggedRequest.objects.filter(began__lte=moment).count()) == (2, 5)
    assert not ModelHour.objects.filter(hour__gt=moment).exists()
    assert not ExhaustionEvent.objects.filter(since__gt=moment).exists()
