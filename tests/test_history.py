"""What finished requests leave: rows of the log, and hourly sums."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from proxy.dashboard.reports.period import Period
from proxy.dashboard.reports.traffic import bars, first_byte_steps, sums
from proxy.gemini.tokens import Tokens
from proxy.ledger import Ledger
from proxy.ledger.history import FinishedRequest, write_history
from proxy.ledger.retention import prune
from proxy.models import ApiKey, FirstByte, FirstByteDay, KeyHour, LoggedRequest, ModelDay, ModelHour, Outcome
from proxy.models.history import first_byte_step, milliseconds_of
from tests import gemini_errors as errors
from tests.conftest import FLASH, Pool, ask, fake_secret
from tests.fake_gemini import FakeGemini, Reply

PACIFIC = ZoneInfo("America/Los_Angeles")
ONE, TWO = fake_secret("one"), fake_secret("two")
NOON = datetime(2026, 11, 20, 12, 34, tzinfo=UTC)
HOUR = datetime(2026, 11, 20, 12, tzinfo=UTC)
REFUSED = errors.quota_exceeded(FLASH, errors.Violation(errors.PER_DAY, 100), delay_seconds=40)


def logged(service: Ledger) -> list[LoggedRequest]:
    """Return the log once all requests are in it."""
    service.close()
    return list(LoggedRequest.objects.order_by("id"))


def finished(began: datetime, key: ApiKey) -> FinishedRequest:
    attempts = [(key.pk, 200)]
    return FinishedRequest(
        began, "r1", "POST", "generateContent", FLASH, attempts, 200, 0, 120, 500, Tokens(7, 5, 3, 1)
    )


def write(*requests: FinishedRequest, has_log: bool = True) -> None:
    with connection.cursor() as cursor:
        write_history(cursor, requests, has_log=has_log)


def test_a_request_is_in_the_log_with_all_that_became_of_it(
    service: Ledger, gemini: FakeGemini, pool: Pool, client: Client
) -> None:
    [key] = pool("one")
    ask(client, headers={"X-Request-Id": "mine-1"})

    [request] = logged(service)
    assert (request.request_id, request.method, request.action) == ("mine-1", "POST", "generateContent")
    assert (request.model_name, request.key, request.attempts) == (FLASH, key, [[key.pk, 200]])
    assert (request.status, request.outcome) == (200, Outcome.AT_ONCE)
    assert request.first_byte_ms is not None
    assert request.first_byte_ms <= request.duration_ms
    assert request.prompt_tokens > 0
    assert abs(timezone.now() - request.began) < timedelta(minutes=1)


def test_the_log_shows_the_answer_of_each_attempt(
    service: Ledger, gemini: FakeGemini, pool: Pool, client: Client
) -> None:
    one, two = pool("one", "two")
    gemini.script(ONE, REFUSED)
    ask(client)

    [request] = logged(service)
    assert request.attempts == [[one.pk, 429], [two.pk, 200]]
    assert (request.outcome, request.key) == (Outcome.AFTER_FAIL_OVER, two)
    assert list(KeyHour.objects.order_by("key").values_list("key", "answers", "errors", "refusals")) == [
        (one.pk, 0, 0, 1),
        (two.pk, 1, 0, 0),
    ]


def test_a_request_that_no_key_was_left_for_is_refused(
    service: Ledger, gemini: FakeGemini, pool: Pool, client: Client
) -> None:
    pool("one")
    gemini.script(ONE, REFUSED)
    assert ask(client).status_code == 503

    [request] = logged(service)
    assert (request.status, request.outcome, request.first_byte_ms) == (503, Outcome.REFUSED, None)


def test_an_error_that_is_handed_on_has_failed(service: Ledger, gemini: FakeGemini, pool: Pool, client: Client) -> None:
    pool("one")
    gemini.script(ONE, Reply(404, {"error": {"code": 404, "message": "no such model", "status": "NOT_FOUND"}}))
    ask(client)

    [request] = logged(service)
    assert (request.status, request.outcome) == (404, Outcome.FAILED)
    assert not FirstByte.objects.exists()


def test_who_shows_no_token_is_not_in_the_log(service: Ledger, pool: Pool) -> None:
    pool("one")
    assert ask(Client()).status_code == 401
    assert logged(service) == []


def test_without_a_log_the_hours_are_counted_all_the_same(
    service: Ledger, gemini: FakeGemini, pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool("one")
    monkeypatch.setattr(service._transaction, "log_days", 0)
    ask(client)
    assert logged(service) == []
    assert ModelHour.objects.get().at_once == 1


@pytest.mark.django_db
def test_hours_are_sums(pool: Pool) -> None:
    [key] = pool("one")
    write(finished(NOON, key), finished(NOON, key), finished(NOON + timedelta(hours=1), key))
    write(finished(NOON, key))

    first, second = ModelHour.objects.order_by("hour")
    assert (first.hour, first.at_once, first.prompt_tokens, first.thinking_tokens) == (HOUR, 3, 21, 9)
    assert second.at_once == 1
    assert FirstByte.objects.get(hour=HOUR).answers == 3
    assert LoggedRequest.objects.count() == 4


@pytest.mark.django_db
def test_expired_rows_are_deleted_in_batches(pool: Pool) -> None:
    [key] = pool("one")
    days = [timedelta(days=number) for number in range(50)]
    write(*(finished(NOON - age, key) for age in days))
    with connection.cursor() as cursor:
        for _ in days:
            prune(cursor, NOON, 7, PACIFIC)

    assert LoggedRequest.objects.count() == 8
    assert KeyHour.objects.count() == 35
    assert ModelHour.objects.count() == 35
    assert ModelDay.objects.count() == 15
    assert FirstByte.objects.count() == 3
    assert FirstByteDay.objects.count() == 47


@pytest.mark.django_db
def test_old_hours_become_quota_days_and_reports_stay_the_same(pool: Pool) -> None:
    [key] = pool("one")
    midnight = datetime(2026, 11, 20, 8, tzinfo=UTC)
    write(*(finished(midnight + timedelta(hours=hours), key) for hours in (-1, 0, 1, 23, 24)))
    later = midnight + timedelta(days=50)
    period = Period.ending(later, "90d", PACIFIC)
    before = bars(period, sums(period)), first_byte_steps(period)
    with connection.cursor() as cursor:
        for _ in range(5):
            prune(cursor, later, 7, PACIFIC)

    days = [(date(2026, 11, 19), 1), (date(2026, 11, 20), 3), (date(2026, 11, 21), 1)]
    assert list(FirstByteDay.objects.order_by("day").values_list("day", "answers")) == days
    assert list(ModelDay.objects.order_by("day").values_list("day", "at_once")) == days
    assert not FirstByte.objects.exists()
    assert not ModelHour.objects.exists()
    assert (bars(period, sums(period)), first_byte_steps(period)) == before
    assert not sums(Period.ending(later, "28d", PACIFIC))


@pytest.mark.django_db
def test_a_late_answer_is_added_to_its_day(pool: Pool) -> None:
    [key] = pool("one")
    for _ in range(2):
        write(finished(NOON, key))
        with connection.cursor() as cursor:
            prune(cursor, NOON + timedelta(days=50), 7, PACIFIC)

    assert ModelDay.objects.values_list("day", "at_once", "prompt_tokens").get() == (date(2026, 11, 20), 2, 14)


@pytest.mark.parametrize("milliseconds", [1, 3, 90, 1_000, 59_000])
def test_a_step_stands_for_about_its_duration(milliseconds: int) -> None:
    assert abs(milliseconds_of(first_byte_step(milliseconds)) / milliseconds - 1) < 0.2
