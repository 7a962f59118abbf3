"""The overview, the request log, and what all pages share: filters, tables, exports, sums over time."""

import csv
import io
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from proxy.dashboard.parts.tables import Cell, Column, Table
from proxy.dashboard.reports import remaining, traffic
from proxy.dashboard.reports.period import Period
from proxy.gemini.quota_day import next_reset
from proxy.gemini.refusals import Refusal, Window
from proxy.gemini.tokens import Tokens
from proxy.ledger.history import FinishedRequest, write_history
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, LoggedRequest, Quota
from tests.conftest import FLASH, Pool, fake_secret

PACIFIC = ZoneInfo("America/Los_Angeles")
PRO = "gemini-2.5-pro"
NOW = datetime(2026, 11, 25, 20, 30, tzinfo=UTC)  # 12:30 in Los Angeles


@pytest.fixture
def person(transactional_db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("anna"))
    return client


def request_of(
    key: ApiKey, began: datetime = NOW, status: int = 200, model_name: str = FLASH, attempts: Any = None, **more: Any
) -> FinishedRequest:
    values: dict[str, Any] = {"request_id": "r1", "waited_ms": 0, "first_byte_ms": 800, "duration_ms": 2_000, **more}
    return FinishedRequest(
        began=began, method="POST", action="generateContent", model_name=model_name, status=status,
        attempts=attempts or [(key.pk, status)], tokens=Tokens(10, 5, 2, 1), **values,
    )  # fmt: skip


def write(*requests: FinishedRequest) -> None:
    with connection.cursor() as cursor:
        write_history(cursor, requests, has_log=True)


def bars_of(period: Period) -> list[traffic.Bar]:
    return traffic.bars(period, traffic.sums(period))


def models_of(period: Period) -> list[traffic.ModelRow]:
    return traffic.models(traffic.sums(period), traffic.first_byte_steps(period))


def shown(person: Client, path: str) -> str:
    response = person.get(path)
    assert response.status_code == 200
    return response.content.decode()


def exported(person: Client, path: str) -> dict[str, list[dict[str, Any]]]:
    return dict(person.get(f"{path}{'&' if '?' in path else '?'}format=json").json())


# Periods


def test_the_last_24_hours_end_with_this_one() -> None:
    period = Period.ending(NOW, "24h", PACIFIC)
    assert (period.since, period.until) == (NOW.replace(minute=30) - timedelta(hours=23, minutes=30), period.until)
    assert (len(period.slots()), period.slots()[-1]) == (24, NOW.replace(minute=0))
    assert period.before().until == period.since
    assert (period.first, period.last) == (date(2026, 11, 24), date(2026, 11, 25))


@pytest.mark.parametrize(("name", "days"), [("7d", 7), ("28d", 28), ("90d", 90)])
def test_the_last_days_end_with_today(name: str, days: int) -> None:
    period = Period.ending(NOW, name, PACIFIC)
    assert (period.last, len(period.slots())) == (date(2026, 11, 25), days)
    assert (period.before().last, period.before().days) == (period.first - timedelta(days=1), days)


def test_days_have_25_hours_when_the_clock_is_set_back() -> None:
    period = Period.of_days(date(2026, 11, 1), date(2026, 11, 1), PACIFIC)
    assert period.until - period.since == timedelta(hours=25)


def test_long_periods_are_shown_by_weeks() -> None:
    period = Period.of_days(date(2026, 1, 1), date(2026, 11, 25), PACIFIC)
    slots = period.day_slots()
    assert (slots[0], slots[1], slots[-1]) == (date(2026, 1, 1), date(2026, 1, 8), date(2026, 11, 19))
    assert {period.slot_of_day(date(2026, 11, day)) for day in range(19, 26)} == {slots[-1]}
    assert period.slot_of(datetime(2026, 11, 19, 7, 59, tzinfo=UTC)) == slots[-2]  # a minute to midnight


# Sums over time


def test_each_hour_and_each_day_has_its_bar(pool: Pool) -> None:
    [key, other] = pool("one", "two")
    write(
        request_of(key),
        request_of(key, status=404),
        request_of(other, attempts=[(key.pk, 429), (other.pk, 200)]),
        request_of(key, NOW - timedelta(hours=3), status=503, is_refused=True, first_byte_ms=None),
        request_of(key, NOW - timedelta(days=2)),
    )
    hours = bars_of(Period.ending(NOW, "24h", PACIFIC))
    assert hours[-1][1:] == (1, 1, 0, 1, 51)
    assert hours[-4].refused == 1
    assert traffic.total(hours).requests == 4
    assert traffic.total_of(Period.ending(NOW, "24h", PACIFIC))[1:] == traffic.total(hours)[1:]

    days = bars_of(Period.ending(NOW, "7d", PACIFIC))
    assert [bar.requests for bar in days] == [0, 0, 0, 0, 1, 0, 4]
    assert traffic.total(bars_of(Period.ending(NOW, "7d", PACIFIC, model_name=PRO))).requests == 0


def test_a_key_has_bars_of_its_own_attempts(pool: Pool) -> None:
    [key, other] = pool("one", "two")
    write(request_of(other, attempts=[(key.pk, 429), (other.pk, 200)]), request_of(other))
    assert bars_of(Period.ending(NOW, "24h", PACIFIC, key_id=key.pk))[-1][1:] == (0, 0, 1, 0, 0)
    assert bars_of(Period.ending(NOW, "24h", PACIFIC, project_id=other.project_id))[-1].at_once == 2

    DailyUsage.objects.create(key=key, model_name=PRO, day=date(2026, 11, 24), answers=5, errors=2, output_tokens=9)
    days = bars_of(Period.ending(NOW, "7d", PACIFIC, key_id=key.pk, model_name=PRO))
    assert days[-2] == (date(2026, 11, 24), 3, 0, 0, 2, 9)


def test_times_to_the_first_byte_are_about_right(pool: Pool) -> None:
    [key] = pool("one")
    write(*(request_of(key, first_byte_ms=milliseconds) for milliseconds in [400] * 90 + [9_000] * 10))
    [model] = models_of(Period.ending(NOW, "24h", PACIFIC))
    assert model.p50 is not None
    assert model.p95 is not None
    assert abs(model.p50 / 400 - 1) < 0.2
    assert abs(model.p95 / 9_000 - 1) < 0.2
    assert models_of(Period.ending(NOW - timedelta(days=9), "24h", PACIFIC)) == []


# What is left


@pytest.fixture
def limited(pool: Pool) -> list[Quota]:
    """Two projects at half past twelve, with a limit of 100 requests per day: one has used 90, the other 10."""
    pool("one", project="p1")
    pool("two", project="p2")
    GeminiModel.objects.begin(FLASH)
    quotas = Quota.objects.filter(model_name=FLASH).order_by("project")
    quotas.update(learned_requests_per_day=100, day=date(2026, 11, 25), day_requests=10)
    Quota.objects.filter(pk=quotas[0].pk).update(day_requests=90)
    return list(quotas)


def test_what_is_left_is_summed_over_projects(limited: list[Quota]) -> None:
    [row] = remaining.remaining(NOW, Period.ending(NOW, "24h", PACIFIC))
    assert row == (FLASH, 100, 200, 100, 2, 2, 100)
    tomorrow = NOW + timedelta(days=1)
    assert remaining.remaining(tomorrow, Period.ending(tomorrow, "24h", PACIFIC))[0].left == 200


def test_who_runs_out_first_is_told_with_the_time(limited: list[Quota]) -> None:
    [row] = remaining.running_out(NOW, Period.ending(NOW, "24h", PACIFIC))
    assert (row.project, row.used, row.limit) == (limited[0].project, 90, 100)
    assert row.moment.astimezone(PACIFIC).strftime("%H:%M") == "13:53"


@pytest.mark.parametrize(
    ("left", "asked", "end"),
    [(100, 100, None), (91, 100, "23:52"), (50, 100, "18:45"), (0, 1, "12:30"), (0, 0, None), (10**12, 1, None)],
)
def test_a_model_lasts_if_it_goes_on_as_today(left: int, asked: int, end: str | None) -> None:
    moment = datetime(2026, 11, 25, 12, 30, tzinfo=PACIFIC)
    row = remaining.Remaining(FLASH, left, used=0, limit=left, known=1, all=1, requests=asked)
    used_up_at = remaining.used_up_at(row, moment)
    assert (used_up_at and used_up_at.strftime("%H:%M")) == end


def test_what_is_left_of_a_project_that_rests_until_the_reset_is_nothing(limited: list[Quota]) -> None:
    Quota.objects.filter(pk=limited[0].pk).update(cooldown_until=next_reset(NOW, PACIFIC))
    Quota.objects.filter(pk=limited[1].pk).update(cooldown_until=NOW + timedelta(minutes=1))
    period = Period.ending(NOW, "24h", PACIFIC)
    assert remaining.remaining(NOW, period)[0].left == 90
    assert list(remaining.running_out(NOW, period)) == []


@pytest.mark.parametrize(
    ("known", "asked", "words"),
    [
        (2, 10, "at today&#x27;s rate, they last until the reset"),
        (2, 150, f"{FLASH}: used up at 16:40"),
        (1, 150, f"{FLASH}: lasts at least until 14:35"),
        (0, 150, "no limit is known yet"),
    ],
)
def test_the_overview_tells_how_long_it_lasts(
    person: Client, limited: list[Quota], known: int, asked: int, words: str
) -> None:
    Quota.objects.filter(pk__in=[quota.pk for quota in limited]).update(day_requests=asked / 2)
    Quota.objects.filter(pk__in=[quota.pk for quota in limited[known:]]).update(learned_requests_per_day=None)
    with time_machine.travel(NOW, tick=False):
        assert words in shown(person, "/dashboard/")


def test_keys_that_are_out_are_not_counted(limited: list[Quota]) -> None:
    ApiKey.objects.filter(project__name="p1").disable(NOW)
    assert remaining.remaining(NOW, Period.ending(NOW, "24h", PACIFIC))[0].left == 90


# Tables


def test_a_table_is_the_same_as_csv_and_json() -> None:
    table = Table("t", "T", [Column("a", "A"), Column("b", "B")], [(Cell("x", href="/y"), 3), (None, NOW)])
    assert list(csv.reader(io.StringIO(table.csv()))) == [["a", "b"], ["x", "3"], ["", NOW.isoformat()]]
    assert table.records() == [{"a": "x", "b": 3}, {"a": None, "b": NOW.isoformat()}]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@x", "\tx", "\n=1", " =1", '"=1', "'=1", "\u00a0=1", "\uff1d1"],
)
def test_no_spreadsheet_takes_a_cell_or_a_heading_for_a_formula(text: str) -> None:
    table = Table("t", "T", [Column(text, "A")], [(text,)])
    assert list(csv.reader(io.StringIO(table.csv(), newline=""))) == [[f"'{text}"]] * 2


def test_numbers_stay_numbers_in_csv() -> None:
    table = Table("t", "T", [Column("a", "A"), Column("b", "B")], [(-1, -0.5)])
    assert table.csv().splitlines()[1] == "-1,-0.5"


# Filters


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("range=1y", "There is no such range."),
        ("range=custom", "Write both days as"),
        ("range=custom&from=2026-11-02&to=2026-11-01", "The first day must come before the last"),
        ("range=custom&from=0001-01-01&to=9999-12-31", "The first day must come before the last"),
        ("key=999", "There is no such key."),
        ("key=x", "There is no such key."),
        ("project=99999999999999999999999", "There is no such project."),
    ],
)
@pytest.mark.parametrize("page", ["", "models/", "requests/"])
def test_invalid_parameters_in_an_address_are_reported(person: Client, query: str, problem: str, page: str) -> None:
    assert problem in shown(person, f"/dashboard/{page}?{query}")


def test_filters_go_along_from_page_to_page(person: Client, pool: Pool) -> None:
    [key] = pool("one", project="p1")
    page = shown(person, f"/dashboard/?range=28d&model={FLASH}&project={key.project_id}")
    kept = f"?range=28d&amp;model={FLASH}&amp;project={key.project_id}"
    for name in ("keys", "exhaustion", "models", "requests", "activity"):
        assert f"/dashboard/{name}/{kept}" in page
    assert f'href="?range=28d&amp;model={FLASH}"' in page  # without the project


# The overview


def test_the_overview_counts_a_day(person: Client, pool: Pool, limited: list[Quota]) -> None:
    key = ApiKey.objects.get(project__name="p1")
    write(request_of(key), request_of(key, NOW - timedelta(hours=30)))
    with time_machine.travel(NOW, tick=False):
        tables = exported(person, "/dashboard/")
        page = shown(person, "/dashboard/")

    assert [row["left"] for row in tables["left"]] == [100]
    assert [row["model"] for row in tables["models"]] == [FLASH]
    assert sum(row["at_once"] for row in tables["traffic"]) == 1
    assert "+0 % from the previous period" in page
    assert "used up at" not in str(tables["left"])


def test_the_overview_of_a_key_shows_nothing_of_others(person: Client, pool: Pool) -> None:
    [key, other] = pool("one", "two")
    write(request_of(other))
    DailyUsage.objects.create(key=other, model_name=FLASH, day=date(2026, 11, 25), answers=1)
    DailyUsage.objects.create(key=key, model_name=PRO, day=date(2026, 11, 25), answers=5, errors=2, refusals=4)
    with time_machine.travel(NOW, tick=False):
        [row] = exported(person, f"/dashboard/?key={key.pk}")["models"]
        assert "measured for the whole pool only" in shown(person, f"/dashboard/?key={key.pk}")
        weeks = exported(person, f"/dashboard/?key={key.pk}&range=custom&from=2026-01-01&to=2026-11-25")["traffic"]

    assert (row["model"], row["requests"], row["failed"], row["refused"], row["p50"]) == (PRO, 9, 2, 4, None)
    assert (len(weeks), weeks[-1]["begin"], weeks[-1]["at_once"]) == (47, "2026-11-19", 3)


def test_every_name_is_a_link_with_the_same_filters(person: Client, pool: Pool) -> None:
    [key] = pool("one", project="p1")
    refusal = Refusal(Window.DAY, limit=5)
    ExhaustionEvent.objects.record(key, FLASH, refusal, NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    write(request_of(key))
    with time_machine.travel(NOW, tick=False):
        pages = {
            name: shown(person, f"/dashboard/{name}?range=7d") for name in ("", "exhaustion/", "requests/", "keys/")
        }
        pages["key"] = shown(person, f"/dashboard/keys/{key.pk}/?range=7d")
    model = f'href="/dashboard/models/?range=7d&amp;model={FLASH}"'
    project = f'href="/dashboard/keys/?range=7d&amp;project={key.project_id}"'
    of_key = f'href="/dashboard/keys/{key.pk}/?range=7d"'
    assert [name for name, page in pages.items() if model not in page] == ["keys/"]  # it names none
    assert [name for name, page in pages.items() if project not in page] == ["requests/"]
    assert [name for name, page in pages.items() if of_key not in page] == ["exhaustion/", "key"]


def test_a_number_against_nothing_is_no_percentage(person: Client, pool: Pool) -> None:
    pool("one")
    assert "none in the previous period" in shown(person, "/dashboard/")


# The log


def test_the_log_shows_what_each_key_answered(person: Client, pool: Pool) -> None:
    [key, other] = pool("one", "two")
    write(request_of(other, attempts=[(key.pk, 429), (other.pk, 200)], request_id="abc"))
    with time_machine.travel(NOW, tick=False):
        [row] = exported(person, "/dashboard/requests/")["requests"]
        page = shown(person, "/dashboard/requests/")

    assert row["keys"] == f"{key.label}: 429, {other.label}: 200"
    assert (row["status"], row["first_byte"], row["prompt_tokens"]) == (200, 800, 10)
    assert f"/dashboard/keys/{key.pk}/" in page
    assert fake_secret("one") not in page


@pytest.mark.parametrize(
    ("query", "found"),
    [("outcome=1", ["a"]), ("outcome=4", ["b"]), ("model=" + PRO, ["c"]), ("q=ol", ["old"]), ("q=none", [])],
)
def test_the_log_is_narrowed(person: Client, pool: Pool, query: str, found: list[str]) -> None:
    [key] = pool("one")
    write(
        request_of(key, request_id="a"),
        request_of(key, request_id="b", status=400),
        request_of(key, request_id="c", status=429, model_name=PRO),
        request_of(key, NOW - timedelta(days=3), request_id="old"),
    )
    with time_machine.travel(NOW, tick=False):
        rows = exported(person, f"/dashboard/requests/?{query}")["requests"]
    assert [row["request_id"] for row in rows] == found


def test_the_log_goes_on_page_by_page(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    write(*(request_of(key, NOW - timedelta(seconds=number), request_id=f"n{number}") for number in range(120)))
    seen: list[str] = []
    with time_machine.travel(NOW, tick=False):
        address = "/dashboard/requests/"
        while address:
            seen += [row["request_id"] for row in exported(person, address)["requests"]]
            page = shown(person, address)
            older = re.search(r'<a href="\?range=24h&amp;before=(\d+)">', page)
            address = f"/dashboard/requests/?range=24h&before={older[1]}" if older else ""
    assert seen == [f"n{number}" for number in range(120)]


def test_only_what_came_since_is_sent_to_a_page_that_is_open(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    write(request_of(key, request_id="r-one"))
    newest = LoggedRequest.objects.get().pk
    assert person.get(f"/dashboard/requests/?after={newest}").content.strip() == b""

    write(request_of(key, request_id="r-two"), request_of(key, request_id="r-three", status=500))
    response = person.get(f"/dashboard/requests/?after={newest}")
    page = response.content.decode()
    assert page.index("r-three") < page.index("r-two")
    assert "r-one" not in page
    assert response.headers["X-Newest"] == str(newest + 2)
    assert "r-two" not in person.get(f"/dashboard/requests/?after={newest}&outcome=4").content.decode()


@pytest.mark.parametrize("rubbish", ["x", "-1", "9" * 40, "\u0661", "%00"])
@pytest.mark.parametrize("name", ["outcome", "before", "after", "q", "table", "format", "page", "sort"])
def test_rubbish_in_an_address_does_no_harm(person: Client, name: str, rubbish: str) -> None:
    for page in ("", "requests/"):
        assert person.get(f"/dashboard/{page}?{name}={rubbish}").status_code == 200


def test_pages_run_nothing_that_is_written_into_them(person: Client, pool: Pool) -> None:
    [key] = pool("one", project="<script>alert(1)</script>")
    write(request_of(key, model_name='"><script>alert(2)</script>', request_id="r"))
    for page in ("", "requests/", "models/", f"?project={key.project_id}"):
        response = person.get(f"/dashboard/{page}")
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert b"<script>alert" not in response.content
