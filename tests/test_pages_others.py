"""The pages Exhaustion, Models and Health, with hand-made rows on a fixed day in the past."""

import csv
import io
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.html import strip_tags
from pytest_django.fixtures import Settings

import keymanager
from proxy.dashboard.parts.lanes import hours, lanes
from proxy.dashboard.reports.exhaustion import MOST_EVENTS, MOST_LANES, QuotaDay, median_of, needed
from proxy.dashboard.reports.health import SETTINGS
from proxy.gemini.refusals import Fault, Window
from proxy.gemini.tokens import Tokens
from proxy.ledger.history import FinishedRequest, write_history
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, Project, Quota
from proxy.pool.adding import add_keys
from tests.conftest import FLASH, fake_secret
from tests.databases import SERVER

PRO = "gemini-2.5-pro"
PACIFIC = ZoneInfo("America/Los_Angeles")
DAY = QuotaDay.of(date(2026, 11, 20), PACIFIC)
NOON = DAY.start + timedelta(hours=12)
ADDRESS = f"/dashboard/exhaustion/?day={DAY.day}"


@pytest.fixture(autouse=True)
def now() -> Iterator[None]:
    """Set the time to noon of the following day."""
    with time_machine.travel(NOON + timedelta(days=1), tick=False):
        yield


@pytest.fixture
def person(db: None) -> Client:
    """A client that is logged in and may view everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("somebody"))
    return client


def key_of(name: str) -> ApiKey:
    """Add a project of this name, and return its key."""
    add_keys([fake_secret(name)], NOON, project=name)
    return ApiKey.objects.get(secret=fake_secret(name))


def rest(
    key: ApiKey,
    since: datetime,
    until: datetime | None = DAY.end,
    *,
    model: str = FLASH,
    window: Window = Window.DAY,
) -> ExhaustionEvent:
    return ExhaustionEvent.objects.create(
        key=key, project=key.project, model_name=model, window=window, limit=20, since=since, until=until
    )


def tables(person: Client, address: str) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of a page from its JSON export."""
    found: dict[str, list[dict[str, Any]]] = person.get(
        address + ("&" if "?" in address else "?") + "format=json"
    ).json()
    return found


def figures(page: str) -> list[str]:
    return [part.split("<")[0].strip() for part in page.split("<dd>")[1:]]


# Exhaustion


def test_an_exhausted_project_is_shown_with_model_reason_and_times(person: Client) -> None:
    rest(key_of("p1"), NOON)

    [row] = tables(person, ADDRESS)["events"]

    assert row == {
        "project": "p1",
        "model": FLASH,
        "why": "requests or tokens per day",
        "limit": 20,
        "since": NOON.isoformat(),
        "until": DAY.end.isoformat(),
    }


def test_a_day_has_what_began_before_it_and_not_what_was_over_or_came_later(person: Client) -> None:
    one, two, three, four = (key_of(name) for name in ("one", "two", "three", "four"))
    rest(one, DAY.start - timedelta(hours=5), DAY.start)
    rest(two, DAY.start - timedelta(hours=5), DAY.start + timedelta(hours=1), window=Window.UNKNOWN)
    rest(three, DAY.start - timedelta(days=90), None, model="", window=Window.CREDITS)
    rest(four, DAY.end, None)

    rows = tables(person, ADDRESS)["events"]

    assert {row["project"] for row in rows} == {"two", "three"}
    assert [(row["model"], row["until"]) for row in rows if row["project"] == "three"] == [
        ("all models", "revived manually")
    ]
    assert figures(person.get(ADDRESS).content.decode()) == ["0", "–", "0", "2"]


def test_who_ran_out_of_the_day_first_stands_first(person: Client) -> None:
    rest(key_of("late"), NOON + timedelta(hours=2))
    rest(key_of("barred"), DAY.start - timedelta(days=9), None, window=Window.NONE)
    rest(key_of("early"), NOON)

    assert [row["project"] for row in tables(person, ADDRESS)["events"]] == ["early", "late", "barred"]


def test_names_lead_to_keys_and_models_and_keep_the_filters(person: Client) -> None:
    key = key_of("p1")
    rest(key, NOON)

    page = person.get(f"{ADDRESS}&range=7d").content.decode()

    assert page.count(f'href="/dashboard/keys/?range=7d&amp;project={key.project_id}"') == 2
    assert f'href="/dashboard/models/?range=7d&amp;model={FLASH}"' in page
    assert 'href="?range=7d&amp;day=2026-11-19"' in page
    assert 'href="?range=7d&amp;day=2026-11-21"' in page


def test_filters_narrow_a_day_and_stay_with_it(person: Client) -> None:
    one, two = key_of("one"), key_of("two")
    rest(one, NOON)
    rest(two, NOON, model=PRO)
    rest(two, NOON, None, model="", window=Window.CREDITS)

    assert [row["model"] for row in tables(person, f"{ADDRESS}&model={FLASH}")["events"]] == [FLASH, "all models"]
    assert {row["project"] for row in tables(person, f"{ADDRESS}&project={two.project_id}")["events"]} == {"two"}
    assert {row["project"] for row in tables(person, f"{ADDRESS}&key={one.pk}")["events"]} == {"one"}
    page = person.get(f"{ADDRESS}&model={FLASH}&project={one.project_id}").content.decode()
    assert f"&amp;project={one.project_id}&amp;day=2026-11-20" in page
    assert f"&amp;model={FLASH}&amp;day=2026-11-20" in page


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "1200-01-01", "9999-12-31", "0001-01-01"])
def test_an_impossible_day_is_reported_and_today_is_shown(person: Client, text: str) -> None:
    response = person.get("/dashboard/exhaustion/", {"day": text})

    assert response.status_code == 200
    assert "Showing today." in response.content.decode()
    assert response.context["shown_day"] == date(2026, 11, 21)


def test_today_is_the_default_and_has_a_line_for_now(person: Client) -> None:
    rest(key_of("p1"), NOON + timedelta(days=1) - timedelta(hours=1), DAY.end + timedelta(days=1))

    page = person.get("/dashboard/exhaustion/").content.decode()

    assert '<line class="now" x1="50.000%" x2="50.000%"' in page
    assert '<line class="now"' not in person.get(ADDRESS).content.decode()


def test_a_bar_is_at_the_time_of_the_event_with_a_letter_for_its_reason(person: Client) -> None:
    key = key_of("p1")
    rest(key, DAY.start + timedelta(hours=6))
    rest(key, NOON, NOON + timedelta(hours=6), window=Window.MINUTE, model=PRO)

    page = person.get(ADDRESS).content.decode()

    assert '<rect class="day" x="25.000%" y="1" width="75.000%" height="14">' in page
    assert '<rect class="minute" x="50.000%" y="27" width="25.000%" height="6">' in page
    assert f">D {FLASH}</text>" in page
    assert f">M {PRO}</text>" in page
    assert f"{PRO}: requests per minute, from 12:00 until 18:00" in page
    assert "style=" not in page.split('class="module lanes"')[1].split("</section>")[0]


@pytest.mark.parametrize(
    ("day", "long", "noon"), [(date(2026, 3, 8), 23, 11), (date(2026, 11, 1), 25, 13), (date(2026, 11, 20), 24, 12)]
)
@pytest.mark.django_db
def test_lanes_are_as_long_as_the_day_when_clocks_change(day: date, long: int, noon: int) -> None:
    shown = QuotaDay.of(day, PACIFIC)
    event = rest(key_of("p1"), datetime(day.year, day.month, day.day, 12, tzinfo=PACIFIC).astimezone(UTC), shown.end)

    [lane] = lanes([event], shown, "?project=")

    assert (shown.end - shown.start) == timedelta(hours=long)
    assert (lane.marks[0].x, lane.marks[0].width) == (
        f"{noon / long * 100:.3f}%",
        f"{(long - noon) / long * 100:.3f}%",
    )
    assert [hour.x for hour in hours(shown, PACIFIC) if hour.name == "12:00"] == [f"{noon / long * 100:.3f}%"]
    assert [hours(shown, PACIFIC)[at].x for at in (0, -1)] == ["0.000%", "100.000%"]


@pytest.mark.django_db
def test_the_shortest_event_is_visible_even_at_the_end_of_the_day() -> None:
    event = rest(key_of("p1"), DAY.end - timedelta(seconds=1), window=Window.MINUTE)

    [lane] = lanes([event], DAY, "")

    assert (lane.marks[0].x, lane.marks[0].width, lane.marks[0].anchor) == ("99.600%", "0.400%", "end")


def test_a_project_without_a_name_goes_by_its_key_which_stays_masked(person: Client) -> None:
    add_keys([fake_secret("nameless")], NOON)
    key = ApiKey.objects.get()
    rest(key, NOON)

    page = person.get(ADDRESS).content.decode()

    assert f"{key.label}</a>" in page
    assert fake_secret("nameless") not in page


def test_more_than_a_hundred_lanes_are_said_to_be_more(person: Client) -> None:
    add_keys([fake_secret(f"n{number}") for number in range(MOST_LANES + 1)], NOON)
    for number, key in enumerate(ApiKey.objects.select_related("project")):
        rest(key, NOON + timedelta(minutes=number))

    response = person.get(ADDRESS)

    assert len(response.context["lanes"]) == MOST_LANES
    assert "The first 100 of 101 projects." in response.content.decode()
    assert figures(response.content.decode())[0] == "101"


def test_as_many_projects_are_shown_as_there_is_room_for(person: Client) -> None:
    for name, minutes in (("one", MOST_EVENTS - 10), ("two", 11), ("three", 1)):
        key = key_of(name)
        for minute in range(minutes):
            since = NOON + timedelta(minutes=minute)
            rest(key, since, since + timedelta(minutes=1), window=Window.MINUTE)
        rest(key, NOON + timedelta(hours=len(name)), window=Window.DAY)

    response = person.get(ADDRESS)

    assert [lane.name for lane in response.context["lanes"]] == ["one"]
    assert "The first 1 of 3 projects." in response.content.decode()
    assert figures(response.content.decode())[0] == "3"


def test_of_a_project_with_very_many_events_the_first_are_shown(person: Client) -> None:
    key = key_of("one")
    for minute in range(MOST_EVENTS + 1):
        since = NOON + timedelta(minutes=minute)
        rest(key, since, since + timedelta(minutes=1), window=Window.MINUTE)

    assert f"The first {MOST_EVENTS} events of this project." in person.get(ADDRESS).content.decode()
    assert len(tables(person, ADDRESS)["events"]) == MOST_EVENTS


@pytest.mark.parametrize(
    ("shares", "more"),
    [([], 0), ([1.0], 0), ([0.5], 1), ([0.25, 0.5], 4), ([1 / 3] * 3, 6), ([0.8], 1), ([0.8] * 4, 1), ([0.0], 1439)],
)
def test_more_projects_are_needed_the_sooner_these_ran_out(shares: list[float], more: int) -> None:
    assert needed(shares) == more


def test_the_median_is_of_what_is_known() -> None:
    assert median_of([0.2, None, 0.4]) == pytest.approx(0.3)
    assert median_of([None]) is None


def test_needed_projects_are_told_for_each_model_and_the_largest_counts(person: Client) -> None:
    one, two = key_of("one"), key_of("two")
    rest(one, DAY.start + timedelta(hours=6))
    rest(one, DAY.start + timedelta(hours=8))  # a second time, since somebody revived it: counts once
    rest(two, NOON)
    rest(two, NOON, model=PRO)
    rest(two, DAY.start + timedelta(hours=1), NOON, model=PRO, window=Window.MINUTE)

    page = person.get(ADDRESS).content.decode()

    assert tables(person, ADDRESS)["models"] == [
        {"model": FLASH, "projects": 2, "median": "09:00", "needed": 4},
        {"model": PRO, "projects": 1, "median": "12:00", "needed": 1},
    ]
    assert figures(page) == ["2", "12:00", "4", "2"]
    assert "at an unchanged rate" in page


def test_what_was_imported_without_a_time_is_not_reckoned_with(person: Client) -> None:
    rest(key_of("one"), DAY.start)
    rest(key_of("two"), NOON)

    assert tables(person, ADDRESS)["models"] == [{"model": FLASH, "projects": 2, "median": "12:00", "needed": 1}]
    assert "Not included, because they were imported without a time: 1." in person.get(ADDRESS).content.decode()


# Models


def requested(key: ApiKey, model: str, hours_ago: int, count: int = 1) -> None:
    """Book `count` requests with a first byte after 100 ms."""
    began = NOON + timedelta(days=1) - timedelta(hours=hours_ago)
    one = FinishedRequest(
        began, "r", "POST", "generateContent", model, [(key.pk, 200)], 200, 0, 100, 500, Tokens(7, 5, 3, 1)
    )
    with connection.cursor() as cursor:
        write_history(cursor, [one] * count, has_log=True)


def test_models_are_sums_of_the_period(person: Client) -> None:
    key = key_of("p1")
    requested(key, FLASH, 1, count=2)
    requested(key, FLASH, 3)
    requested(key, PRO, 3)
    requested(key, PRO, 30)

    flash, pro = tables(person, "/dashboard/models/")["models"]

    assert 80 < flash.pop("p50") <= flash.pop("p95") < 130
    assert flash == {
        "model": FLASH,
        "requests": 3,
        "failed": 0,
        "refused": 0,
        "prompt_tokens": 21,
        "output_tokens": 15,
        "thinking_tokens": 9,
        "cached_tokens": 3,
    }
    assert (pro["model"], pro["requests"]) == (PRO, 1)
    assert [row["requests"] for row in tables(person, "/dashboard/models/?range=7d")["models"]] == [3, 2]


def test_the_chart_has_five_models_and_the_others(person: Client) -> None:
    key = key_of("p1")
    for number in range(7):
        requested(key, f"model-{number}", 1, count=10 - number)
    requested(key, "model-0", 2)

    response = person.get("/dashboard/models/")
    series = response.context["chart"].data["series"]

    assert [line["label"] for line in series] == [*(f"model-{number}" for number in range(5)), "others"]
    assert [line["data"][-2] for line in series] == [10, 9, 8, 7, 6, 9]
    assert [line["data"][-3] for line in series] == [1, 0, 0, 0, 0, 0]
    row = tables(person, "/dashboard/models/")["bars"][-2]
    assert {name: row[name] for name in ("model-0", "model-4", "others")} == {"model-0": 10, "model-4": 6, "others": 9}


def test_of_some_keys_models_are_known_by_the_day(person: Client) -> None:
    key, other = key_of("p1"), key_of("p2")
    today = date(2026, 11, 21)
    DailyUsage.objects.create(
        key=key, model_name=FLASH, day=today, answers=5, errors=2, refusals=3, prompt_tokens=10, output_tokens=4
    )
    DailyUsage.objects.create(key=other, model_name=FLASH, day=today, answers=50)

    for narrowed in (f"project={key.project_id}", f"key={key.pk}", f"key={key.pk}&model={FLASH}"):
        found = tables(person, f"/dashboard/models/?{narrowed}")
        [row] = found["models"]
        assert (row["requests"], row["failed"], row["refused"], row["prompt_tokens"], row["p50"]) == (8, 2, 3, 10, None)
        assert found["bars"][-1] == {"begin": "2026-11-21", FLASH: 8, "others": 0}
    assert "by whole quota days" in person.get(f"/dashboard/models/?key={key.pk}").content.decode()


def test_a_limit_set_by_hand_wins_and_projects_with_a_known_one_are_counted(person: Client) -> None:
    limits: list[dict[str, int]] = [
        {"learned_requests_per_day": 20},
        {"learned_requests_per_day": 20, "requests_per_day": 250, "requests_per_minute": 5},
        {},
    ]
    for number, known in enumerate(limits):
        Quota.objects.create(project=Project.objects.create(name=f"p{number}"), model_name=FLASH, **known)
    barred = Project.objects.create(name="barred")
    Quota.objects.create(project=barred, model_name=FLASH, requests_per_day=1, is_barred=True)
    Quota.objects.create(project=barred, model_name="-", requests_per_day=1)

    assert tables(person, "/dashboard/models/")["limits"] == [
        {"model": FLASH, "limit": "requests per minute", "lowest": 5, "highest": 5, "known": 1, "projects": 3},
        {"model": FLASH, "limit": "requests per day", "lowest": 20, "highest": 250, "known": 2, "projects": 3},
    ]
    assert tables(person, f"/dashboard/models/?model={PRO}")["limits"] == []


def test_a_model_leads_to_the_page_of_it_alone(person: Client) -> None:
    requested(key_of("p1"), FLASH, 1)

    assert f'href="/dashboard/models/?range=24h&amp;model={FLASH}"' in person.get("/dashboard/models/").content.decode()
    assert tables(person, f"/dashboard/models/?model={PRO}")["models"] == []


# Health


def test_the_settings_on_the_page_are_those_of_the_example() -> None:
    text = (Path(__file__).parent.parent / ".env.example").read_text(encoding="utf-8")

    named = re.findall(r"^(?:# ?)?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)

    assert sorted(SETTINGS) == sorted(named)


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert keymanager.__version__ == project["version"]


def test_health_tells_versions_database_ledger_and_settings(person: Client) -> None:
    found = tables(person, "/dashboard/health/")
    database = {row["what"]: row["value"] for row in found["database"]}
    settings = {row["what"]: row["value"] for row in found["settings"]}

    assert {row["what"] for row in found["versions"]} == {"Key manager", "Django", "Python"}
    if SERVER:
        assert database["Kind and version"].startswith("postgresql ")
        assert database["Name"] == connection.settings_dict["NAME"]
    else:
        assert database["Kind and version"].startswith("sqlite 3.")
        assert database["File"] == connection.settings_dict["NAME"]
        assert database["File size"] == Path(database["File"]).stat().st_size
    assert database["Migrations not applied"] == "none"
    assert database["Migrations applied"] > 10
    assert {row["value"] for row in found["ledger"]} == {0, 1000}
    assert set(settings) == {*SETTINGS, "HTTPS_PROXY", "NO_PROXY"}
    assert (settings["MAX_BODY_MB"], settings["SHOW_KEY_NAMES"], settings["WEB_WORKERS"]) == ("100", "off", "2")


def test_health_counts_keys_by_state_and_rows_of_the_log(person: Client) -> None:
    one, two, three, four = (key_of(name) for name in ("one", "two", "three", "four"))
    ApiKey.objects.filter(pk=two.pk).disable(NOON)
    ApiKey.objects.filter(pk=three.pk).mark_bad(Fault.LEAKED, "leaked", NOON)
    ApiKey.objects.filter(pk=four.pk).forget(NOON)
    requested(one, FLASH, 1, count=5)

    found = tables(person, "/dashboard/health/")

    assert found["keys"] == [{"state": state, "keys": 1} for state in ("usable", "disabled", "bad", "deleted")]
    assert {row["what"]: row["value"] for row in found["database"]}["Requests in the log (approximate)"] == 5


def test_health_names_a_missing_migration(person: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db.migrations.recorder import MigrationRecorder  # noqa: PLC0415

    recorder = MigrationRecorder(connection)
    latest = max(name for app, name in recorder.applied_migrations() if app == "proxy")
    recorder.record_unapplied("proxy", latest)

    page = person.get("/dashboard/health/").content.decode()

    assert f"proxy.{latest}: run `python manage.py migrate`" in page


def test_health_shows_no_secret(person: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PLACEHOLDER_TOKEN = "token-of-clients"
    settings.SECRET_KEY = "key-of-sessions"
    settings.UPSTREAM_URL = "https://somebody:upstream-password@gemini.example/?key=key-in-address"
    settings.ALLOWED_HOSTS = ["testserver", fake_secret("in-a-list")]
    monkeypatch.setenv("HTTPS_PROXY", "http://somebody:proxy-password@way-out.example:8080")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    monkeypatch.setitem(connection.settings_dict, "PASSWORD", "database-password")
    person.force_login(User.objects.get())  # the old session was signed with the old secret
    key = key_of("secret-of-pool")

    pages = [person.get("/dashboard/health/").content.decode()]
    pages += [
        person.get(f"/dashboard/health/?format={form}&table=settings").content.decode() for form in ("csv", "json")
    ]

    secrets = ["token-of-clients", "key-of-sessions", "upstream-password", "key-in-address", "proxy-password"]
    secrets += ["database-password", "somebody:", fake_secret("in-a-list"), str(key.secret)]
    assert [secret for secret in secrets for page in pages if secret in page] == []
    for shown in ("https://…@gemini.example/", "http://…@way-out.example:8080", "inside.example", "set, not shown"):
        assert shown in pages[0]


def test_of_another_database_only_the_place_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.dashboard.reports.health import settings_in_force  # noqa: PLC0415

    monkeypatch.setattr(type(connection._connections[connection._alias]), "vendor", "postgresql")  # type: ignore[attr-defined]
    for name, value in {"HOST": "db.example", "PORT": 5432, "NAME": "keys", "USER": "me", "PASSWORD": "hidden"}.items():
        monkeypatch.setitem(connection.settings_dict, name, value)

    [shown] = [setting for setting in settings_in_force() if setting.name == "DATABASE_URL"]

    assert shown == ("DATABASE_URL", "postgresql://db.example:5432/keys", "password")


def test_the_well_known_token_is_told_as_such_and_not_shown(person: Client) -> None:
    page = person.get("/dashboard/health/").content.decode()

    assert "the well-known default" in page
    assert "PLACEHOLDER_GEMINI_TOKEN" not in page
    assert "For the worker process that served this page" in page


def test_health_has_no_range(person: Client) -> None:
    page = person.get("/dashboard/health/").content.decode()

    assert 'class="filters"' not in page
    assert 'class="ranges"' not in page


# All three

PAGES = [ADDRESS, "/dashboard/models/?range=7d", "/dashboard/health/"]


def live(count: int) -> None:
    """Let keys in separate projects answer and run out."""
    for number in range(count):
        key = key_of(f"live-{count}-{number}")
        rest(key, NOON + timedelta(minutes=number), model=f"model-{number % 7}")
        rest(key, NOON, NOON + timedelta(minutes=1), window=Window.MINUTE)
        requested(key, f"model-{number % 7}", number % 20)
        Quota.objects.create(project=key.project, model_name=FLASH, requests_per_day=number)


@pytest.mark.parametrize("address", PAGES)
def test_a_page_costs_as_many_queries_with_40_projects_as_with_2(person: Client, address: str) -> None:
    live(2)
    person.get(address)
    with CaptureQueriesContext(connection) as few:
        assert person.get(address).status_code == 200
    live(40)
    with CaptureQueriesContext(connection) as many:
        assert person.get(address).status_code == 200

    assert len(many) == len(few)


@pytest.mark.parametrize("address", PAGES)
def test_every_table_is_handed_out_as_csv_and_json(person: Client, address: str) -> None:
    live(3)
    sign = "&" if "?" in address else "?"

    for name, records in tables(person, address).items():
        text = person.get(f"{address}{sign}format=csv&table={name}").content.decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len(rows) == len(records) > 0
        assert list(rows[0]) == list(records[0])


@pytest.mark.parametrize("address", PAGES)
def test_a_page_without_anything_says_so(person: Client, address: str) -> None:
    response = person.get(address)

    assert response.status_code == 200
    text = strip_tags(response.content.decode())
    if "exhaustion" in address:
        assert "No project was rate-limited or exhausted on this day." in text
    if "models" in address:
        assert "No requests in this period." in text
        assert "No limit is known yet." in text


@pytest.mark.parametrize("address", PAGES)
def test_nothing_on_a_page_needs_inline_script_or_style(person: Client, address: str) -> None:
    live(2)

    page = person.get(address).content.decode().split('id="content-main"')[1]

    assert " style=" not in page
    assert "<style" not in page
    assert {kind for kind in re.findall(r"<script([^>]*)>", page) if 'type="application/json"' not in kind} == set()
