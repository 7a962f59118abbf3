"""The list of keys, actions on several keys, and the page of a key."""

import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from proxy.dashboard.parts.heatmaps import calendar
from proxy.dashboard.reports import today
from proxy.gemini.refusals import Fault, Refusal, Window
from proxy.ledger.history import FinishedRequest, write_history
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, KeyHour, KeyState, Project, Quota
from tests import gemini_errors as errors
from tests.conftest import FLASH, Pool, fake_secret
from tests.fake_gemini import FakeGemini

KEYS = "/dashboard/keys/"
PRO = "gemini-2.5-pro"
NOW = datetime(2026, 11, 25, 20, 30, tzinfo=UTC)  # a Wednesday, 12:30 in Los Angeles


@pytest.fixture
def person(transactional_db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("anna"))
    return client


class Cells(HTMLParser):
    """The cells of a heat map that have a number, by title, and the number of all cells."""

    def __init__(self, page: str, name: str) -> None:
        super().__init__()
        self.numbers: dict[str, tuple[str, str]] = {}
        self.count = 0
        self._cell: tuple[str, str] | None = None
        self.feed(page[page.index(f'id="{name}">') :].split("</table>", maxsplit=1)[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "td":
            self.count += 1
            values = dict(attrs)
            self._cell = (values["title"] or "", values["class"] or "") if "title" in values else None

    def handle_endtag(self, tag: str) -> None:
        self._cell = None if tag == "td" else self._cell

    def handle_data(self, data: str) -> None:
        if self._cell and data.strip():
            self.numbers[self._cell[0]] = (data, self._cell[1])


def page_of(person: Client, path: str = KEYS) -> str:
    response = person.get(path)
    assert response.status_code == 200
    return response.content.decode()


def records(person: Client, path: str = KEYS, table: str = "keys") -> list[dict[str, Any]]:
    return list(person.get(f"{path}{'&' if '?' in path else '?'}format=json").json()[table])


def fours(person: Client, query: str = "") -> list[str]:
    """Return the last four characters of the keys on a page, in order."""
    return [str(row["name"])[-4:].lstrip("0…") for row in records(person, KEYS + query)]


def used(key: ApiKey, answers: int, day: date | None = None, model_name: str = FLASH) -> None:
    DailyUsage.objects.create(key=key, model_name=model_name, day=day or today(timezone.now()), answers=answers)


def rest(key: ApiKey, model_name: str = FLASH, until: datetime | None = None) -> None:
    refusal = Refusal(Window.DAY, limit=250)
    ExhaustionEvent.objects.record(key, model_name, refusal, timezone.now(), until)


def one_of_each(pool: Pool) -> list[ApiKey]:
    """Return keys that are usable, rate-limited, bad and disabled."""
    keys = pool("good", "rest", "bad!", "idle")
    rest(keys[1], until=timezone.now() + timedelta(hours=2))
    ApiKey.objects.filter(pk=keys[2].pk).mark_bad(Fault.SUSPENDED, "it was suspended", timezone.now())
    ApiKey.objects.filter(pk=keys[3].pk).disable(timezone.now())
    return keys


# The list


def test_each_key_tells_how_it_stands(person: Client, pool: Pool) -> None:
    with time_machine.travel(NOW, tick=False):
        one_of_each(pool)
        states = [row["state"] for row in records(person)]
    assert states == [
        "● usable",
        f"◐ exhausted for {FLASH} until 2026-11-25 14:30",
        "✕ bad since 2026-11-25 12:30: suspended: it was suspended",
        "○ disabled",
    ]


def test_a_key_that_rests_for_several_models_names_the_longest_rest(person: Client, pool: Pool) -> None:
    with time_machine.travel(NOW, tick=False):
        [key] = pool("one")
        rest(key, until=NOW + timedelta(hours=1))
        rest(key, PRO, until=NOW + timedelta(hours=3))
        assert records(person)[0]["state"] == f"◐ exhausted for {PRO} until 2026-11-25 15:30, and for 1 more"
        rest(key, "", until=None)
        assert records(person)[0]["state"] == "◐ unavailable for all models until revived manually, and for 2 more"
        assert records(person, f"{KEYS}?model={FLASH}")[0]["state"].endswith("until revived manually, and for 1 more")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("usable", ["good", "rest"]),
        ("limited", ["rest"]),
        ("bad", ["bad!"]),
        ("disabled", ["idle"]),
        ("nonsense", ["good", "rest", "bad!", "idle"]),
    ],
)
def test_keys_are_filtered_by_their_state(person: Client, pool: Pool, state: str, expected: list[str]) -> None:
    one_of_each(pool)
    assert fours(person, f"?state={state}") == expected


def test_use_of_today_stands_beside_the_limit_of_the_project(person: Client, pool: Pool) -> None:
    one, two = pool("one", "two")
    used(one, 7)
    used(one, 5, model_name=PRO)
    used(one, 100, today(timezone.now()) - timedelta(days=27))
    used(one, 1_000, today(timezone.now()) - timedelta(days=28))
    for model_name, limits in ((FLASH, {"learned_requests_per_day": 250}), (PRO, {"requests_per_day": 50}), ("x", {})):
        Quota.objects.create(project=one.project, model_name=model_name, **limits)

    first, second = records(person)
    assert (first["used"], first["limit"], first["recently"]) == (12, 300, 112)
    assert (second["used"], second["limit"], second["recently"]) == (0, None, 0)
    assert "112 answers in 28 days, most on" in page_of(person)
    assert "no answers in 28 days" in page_of(person)
    [first, _] = records(person, f"{KEYS}?model={PRO}")
    assert (first["used"], first["limit"], first["recently"]) == (5, 50, 5)
    assert two.project_id != one.project_id


def test_the_picture_of_the_days_is_made_of_numbers_alone(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    used(key, 10)
    used(key, 5, today(timezone.now()) - timedelta(days=27))
    assert '<path d="M0 20v-10h3v10zM108 20v-20h3v20z"/>' in page_of(person)
    assert "style=" not in page_of(person)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["aaaa", "bbbb", "cccc"]),
        ("-name", ["cccc", "bbbb", "aaaa"]),
        ("used", ["bbbb", "cccc", "aaaa"]),
        ("-used", ["aaaa", "cccc", "bbbb"]),
        ("-last_used", ["bbbb", "cccc", "aaaa"]),
        ("project", ["cccc", "aaaa", "bbbb"]),
        ("state", ["bbbb", "aaaa", "cccc"]),
        ("secret", ["aaaa", "bbbb", "cccc"]),
    ],
)
def test_keys_are_sorted_as_asked(person: Client, pool: Pool, sort: str, expected: list[str]) -> None:
    one, two, three = *pool("aaaa", "bbbb", project="p2"), *pool("cccc", project="p1")
    used(one, 5)
    used(one, 4, model_name=PRO)
    used(three, 7)
    ApiKey.objects.filter(pk=two.pk).update(last_used=NOW)
    ApiKey.objects.filter(pk=three.pk).update(last_used=NOW - timedelta(days=1))
    ApiKey.objects.filter(pk=one.pk).disable(timezone.now())
    ApiKey.objects.filter(pk=three.pk).mark_bad(Fault.INVALID, "", timezone.now())
    assert fours(person, f"?sort={sort}") == expected


def test_sorting_by_use_does_no_harm_on_a_day_without_any(person: Client, pool: Pool) -> None:
    pool("one", "two")
    assert fours(person, "?sort=-used") == ["two", "one"]


def test_a_search_finds_names_projects_and_the_last_four(person: Client, pool: Pool) -> None:
    one, two = pool("xaaaa", project="blue sky"), pool("xbbbb")
    pool("xcccc")
    ApiKey.objects.filter(pk=two[0].pk).update(name="Spare Key")
    for searched, expected in (
        ("BLUE", ["aaaa"]),
        ("spare", ["bbbb"]),
        ("…bbbb", ["bbbb"]),
        ("cCc", ["cccc"]),
        (f"key {one[0].pk} …aaaa", ["aaaa"]),
        ("100%", []),
    ):
        assert fours(person, f"?q={searched}") == expected


def test_a_search_cannot_feel_its_way_through_a_secret(person: Client, pool: Pool) -> None:
    pool("abcde")
    assert fours(person, "?q=bcde") == ["bcde"]
    for guessed in ("abcd", "abcde", "AIza", "0abcde"):
        assert fours(person, f"?q={guessed}") == []


def test_keys_are_narrowed_to_a_project(person: Client, pool: Pool) -> None:
    one, two = pool("one", "two", project="p1")
    pool("else")
    page = page_of(person)
    assert f'href="/dashboard/keys/?range=24h&amp;project={one.project_id}"' in page
    assert fours(person, f"?project={one.project_id}") == ["one", "two"]
    assert fours(person, f"?project={one.project_id}&key={two.pk}") == ["two"]
    assert f'name="project" value="{one.project_id}"' in page_of(person, f"{KEYS}?project={one.project_id}")


def test_many_keys_come_fifty_a_page(person: Client, pool: Pool) -> None:
    pool(*(f"{number:04}" for number in range(120)))
    first = records(person)
    second = records(person, f"{KEYS}?page=2")
    last = records(person, f"{KEYS}?page=999")
    assert [len(first), len(second), len(last)] == [50, 50, 20]
    assert len({row["name"] for row in first + second + last}) == 120

    page = page_of(person, f"{KEYS}?page=2&q=key&state=usable&sort=-last_used&range=7d")
    assert "120 keys, page 2 of 3" in page
    kept = "range=7d&amp;q=key&amp;state=usable&amp;sort=-last_used"
    assert f'href="?{kept}&amp;page=1"' in page
    assert f'href="?{kept}&amp;page=3"' in page
    assert "page=2" not in re.findall(r'<th scope="col"[^>]*><a href="([^"]*)"', page)[0]


def test_a_key_leads_to_its_page_with_the_filters_kept(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    assert f'<a href="/dashboard/keys/{key.pk}/?range=7d&amp;model={PRO}">' in page_of(
        person, f"{KEYS}?range=7d&model={PRO}"
    )


def test_an_empty_pool_says_what_to_do(person: Client, pool: Pool) -> None:
    assert 'There are no keys yet. <a href="/admin/proxy/apikey/add/">Add keys</a>' in page_of(person)
    assert "Show all keys" in page_of(person, f"{KEYS}?q=nothing")
    [key] = pool("one")
    ApiKey.objects.filter(pk=key.pk).forget(timezone.now())
    assert "There are no keys yet." in page_of(person)


@pytest.mark.parametrize("form", ["html", "csv", "json"])
def test_no_secret_leaves(person: Client, pool: Pool, form: str) -> None:
    keys = one_of_each(pool)
    for path in (KEYS, *(f"{KEYS}{key.pk}/" for key in keys)):
        content = person.get(f"{path}?format={form}").content.decode()
        assert not [key for key in keys if str(key.secret) in content]
        assert "AIza" not in content


def test_a_page_of_many_keys_takes_no_more_queries(person: Client, pool: Pool) -> None:
    def count(sort: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page_of(person, f"{KEYS}?sort={sort}")
        return len(queries)

    def add(*names: str) -> None:
        for key in pool(*names):
            used(key, 3)
            rest(key, until=timezone.now() + timedelta(hours=1))

    sorts = ("name", "-used", "state", "project")
    add("one", "two", "three")
    few = [count(sort) for sort in sorts]
    add(*(f"{number:04}" for number in range(57)))
    assert [count(sort) for sort in sorts] == few
    assert max(few) <= 12


@pytest.mark.parametrize("rubbish", ["x", "-1", "9" * 5000, "%D9%A1", "%00", "'"])
@pytest.mark.parametrize("name", ["q", "state", "sort", "page", "model", "project", "key"])
def test_rubbish_in_the_address_does_no_harm(person: Client, pool: Pool, name: str, rubbish: str) -> None:
    [key] = pool("one")
    page_of(person, f"{KEYS}?{name}={rubbish}")
    page_of(person, f"{KEYS}{key.pk}/?{name}={rubbish}")


def test_names_are_shown_and_never_run(person: Client, pool: Pool) -> None:
    [key] = pool("one", project="<script>alert(1)</script>")
    ApiKey.objects.filter(pk=key.pk).update(name="<script>alert(2)</script>")
    ApiKey.objects.filter(pk=key.pk).mark_bad(Fault.INVALID, "<script>alert(3)</script>", timezone.now())
    for path in (KEYS, f"{KEYS}{key.pk}/"):
        assert "<script>alert" not in page_of(person, path)


# Several at once


def act(person: Client, action: str, *keys: ApiKey, query: str = "", **fields: str) -> str:
    """Post an action, and return the messages on the page after the redirect."""
    posted = {"action": action, "chosen": [key.pk for key in keys], **fields}
    response = person.post(KEYS + query, posted, follow=True)
    assert response.redirect_chain == [(KEYS + query, 302)]
    return " ".join(re.findall(r'<ul class="messagelist">(.*?)</ul>', response.content.decode(), re.DOTALL))


def test_several_keys_are_disabled_and_enabled_at_once(person: Client, pool: Pool) -> None:
    one, two, three = pool("one", "two", "three")

    assert "2 keys disabled." in act(person, "disable", one, three, query="?range=7d&state=usable&page=1")
    assert [key.state for key in ApiKey.objects.order_by("id")] == [
        *(KeyState.DISABLED, KeyState.USABLE, KeyState.DISABLED),
    ]
    assert "1 key enabled." in act(person, "enable", one)
    assert set(ApiKey.objects.usable()) == {one, two}


def test_several_keys_get_their_project_at_once(person: Client, pool: Pool) -> None:
    one, two, three = pool("one", "two", "three")
    assert "2 keys moved to p7." in act(person, "set_project", one, two, project_name=" p7 ")
    assert [key.project.name for key in ApiKey.objects.order_by("id").select_related("project")] == ["p7", "p7", ""]

    for name in ("", "x" * 101):
        assert "Enter the name of the project" in act(person, "set_project", three, project_name=name)
    assert Project.objects.exclude(name="").count() == 1


def test_several_keys_are_checked_at_once(person: Client, pool: Pool, gemini: FakeGemini, settings: Settings) -> None:
    settings.UPSTREAM_URL = gemini.url
    one, two = pool("one", "two")
    gemini.script(fake_secret("two"), errors.suspended(fake_secret("two")))

    assert "Checked: 1 good, 1 bad, 0 unknown." in act(person, "check", one, two)
    assert list(ApiKey.objects.bad()) == [two]
    assert list(ApiKey.objects.usable()) == [one]


def test_what_is_missing_is_told_in_a_sentence(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    assert "Select at least one key." in act(person, "disable")
    assert "Choose an action." in act(person, "", key)
    assert "Choose an action." in act(person, "delete", key)
    assert (
        "Select at least one key." in person.post(KEYS, {"chosen": ["x", "-1"], "action": "disable"}, follow=True).text
    )
    assert list(ApiKey.objects.usable()) == [key]


def test_only_those_who_may_change_keys_do(pool: Pool) -> None:
    [key] = pool("one")
    somebody = User.objects.create_user("bert", is_staff=True)
    client = Client()
    client.force_login(somebody)
    assert 'name="chosen"' not in page_of(client)
    assert client.post(KEYS, {"chosen": key.pk, "action": "disable"}).status_code == 403
    assert ApiKey.objects.usable().exists()

    somebody.user_permissions.add(Permission.objects.get(codename="change_apikey"))
    assert 'name="chosen"' in page_of(client)
    assert "1 key disabled." in act(client, "disable", key)


def test_only_staff_see_keys_and_only_from_our_own_page(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    strict = Client(enforce_csrf_checks=True)
    assert strict.get(KEYS).status_code == 302
    strict.force_login(User.objects.get())
    assert strict.post(KEYS, {"chosen": key.pk, "action": "disable"}).status_code == 403
    assert person.put(KEYS).status_code == 405
    assert person.post(f"{KEYS}{key.pk}/").status_code == 405


def test_each_box_has_a_label(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    box = f'<label class="choice"><input type="checkbox" name="chosen" value="{key.pk}">'
    assert f'{box}<span class="visually-hidden">Select {key.label}</span></label>' in page_of(person)


# The page of a key


def test_a_page_tells_how_a_key_stands_and_leads_to_the_admin(person: Client, pool: Pool) -> None:
    [key] = pool("one", project="p1")
    page = page_of(person, f"{KEYS}{key.pk}/?range=7d")
    assert f"<h1>{key.label}</h1>" in page
    assert "● usable" in page
    assert f'href="/dashboard/keys/?range=7d&amp;project={key.project_id}">p1</a>' in page
    assert f'href="/admin/proxy/apikey/{key.pk}/change/"' in page


def test_there_is_no_page_of_a_key_that_never_was(person: Client) -> None:
    assert person.get(f"{KEYS}1/").status_code == 404
    assert person.get(f"{KEYS}{'9' * 40}/").status_code == 404


def test_a_deleted_key_keeps_its_history(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    used(key, 42)
    ApiKey.objects.filter(pk=key.pk).forget(timezone.now())
    page = page_of(person, f"{KEYS}{key.pk}/")
    assert "⊘ deleted at" in page
    assert ": 42" in page
    assert "/admin/proxy/apikey/" not in page


def test_the_calendar_holds_each_day_where_it_belongs(person: Client, pool: Pool) -> None:
    with time_machine.travel(NOW, tick=False):
        [key] = pool("one")
        used(key, 100, date(2026, 11, 25))
        used(key, 20, date(2026, 11, 1))
        used(key, 7, date(2026, 11, 1), PRO)
        used(key, 9, date(2026, 5, 31))  # the first day of 26 weeks that begin on Sundays
        used(key, 5_000, date(2026, 5, 30))
        page = page_of(person, f"{KEYS}{key.pk}/")
        pro = page_of(person, f"{KEYS}{key.pk}/?model={PRO}")
    cells = Cells(page, "days")
    assert cells.count == 26 * 7
    assert len(cells.numbers) == 25 * 7 + 4  # three days are still to come
    assert {title: found for title, found in cells.numbers.items() if found[0] != "0"} == {
        "Nov. 25, 2026: 100": ("100", "heat-4"),
        "Nov. 1, 2026: 27": ("27", "heat-3"),
        "May 31, 2026: 9": ("9", "heat-1"),
    }
    assert Cells(pro, "days").numbers["Nov. 1, 2026: 7"] == ("7", "heat-1")


def test_days_are_rows_by_weekday_and_columns_by_week() -> None:
    shown = calendar("days", "", {date(2026, 11, 25): 3, date(2026, 11, 17): 2}, date(2026, 11, 25))
    assert [heading.full for heading, _ in shown.rows][0::6] == ["Sunday", "Saturday"]
    assert shown.rows[3][0].full == "Wednesday"
    assert shown.rows[3][1][-1].value == 3
    assert (shown.rows[2][0].full, shown.rows[2][1][-2].value) == ("Tuesday", 2)
    assert shown.rows[4][1][-1].value is None
    assert [shown.columns[0].full, shown.columns[-1].full] == ["week of May 31, 2026", "week of Nov. 22, 2026"]


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([], [0]),
        ([7], [0, 1]),
        ([5, 5, 5], [0, 1]),
        ([1, 2], [0, 1, 4]),
        ([1, 2, 3, 4, 5, 6, 7, 10**12], [0, 1, 2, 3, 4]),
        ([1] * 9 + [50], [0, 1, 4]),
    ],
)
def test_the_legend_says_what_each_color_stands_for(values: list[int], steps: list[int]) -> None:
    answers = {date(2026, 11, 25) - timedelta(days=ago): value for ago, value in enumerate(values)}
    shown = calendar("days", "", answers, date(2026, 11, 25))
    assert [step for step, _words in shown.legend] == steps
    for cell in (cell for _heading, cells in shown.rows for cell in cells if cell.value is not None):
        [words] = [words for step, words in shown.legend if step == cell.step]
        low, _, high = words.partition("–")
        assert int(low) <= (cell.value or 0) <= int(high or low)


def test_the_hours_are_those_of_the_quota_zone(person: Client, pool: Pool) -> None:
    with time_machine.travel(NOW, tick=False):
        [key] = pool("one")
        for hour, answers in (
            (datetime(2026, 11, 25, 20, tzinfo=UTC), 8),  # 12:00 today
            (datetime(2026, 11, 1, 8, tzinfo=UTC), 3),  # 01:00, for the first time
            (datetime(2026, 11, 1, 9, tzinfo=UTC), 4),  # 01:00 again
            (datetime(2026, 10, 29, 7, tzinfo=UTC), 2),  # the first hour of 28 days
            (datetime(2026, 10, 29, 6, tzinfo=UTC), 100),
        ):
            KeyHour.objects.create(key=key, hour=hour, answers=answers)
        cells = Cells(page_of(person, f"{KEYS}{key.pk}/"), "hours")
    assert cells.count == 28 * 24
    assert len(cells.numbers) == 27 * 24 + 13
    assert {title: number for title, (number, _) in cells.numbers.items() if number != "0"} == {
        "Nov. 25, 2026, 12:00: 8": "8",
        "Nov. 1, 2026, 01:00: 7": "7",
        "Oct. 29, 2026, 00:00: 2": "2",
    }


def test_a_day_on_which_the_clock_is_set_forward_lacks_an_hour(person: Client, pool: Pool) -> None:
    with time_machine.travel(datetime(2026, 3, 20, 20, 30, tzinfo=UTC), tick=False):
        [key] = pool("one")
        KeyHour.objects.create(key=key, hour=datetime(2026, 3, 8, 10, tzinfo=UTC), answers=6)
        cells = Cells(page_of(person, f"{KEYS}{key.pk}/"), "hours")
    assert len(cells.numbers) == 27 * 24 - 1 + 14
    assert "March 8, 2026, 02:00: 0" not in cells.numbers
    assert cells.numbers["March 8, 2026, 03:00: 6"] == ("6", "heat-1")


def test_use_is_told_by_model_for_the_period_asked(person: Client, pool: Pool) -> None:
    [key, other] = pool("one", "two")
    day = today(timezone.now())
    values = {"errors": 2, "refusals": 3, "prompt_tokens": 10, "output_tokens": 5, "thinking_tokens": 4}
    DailyUsage.objects.create(key=key, model_name=FLASH, day=day, answers=9, **values)
    DailyUsage.objects.create(key=key, model_name=FLASH, day=day - timedelta(days=3), answers=1, **values)
    used(key, 50, model_name="")
    used(other, 1_000)

    of_days = [tuple(row.values()) for row in records(person, f"{KEYS}{key.pk}/?range=7d", "models")]
    assert of_days == [("(no model)", 50, 0, 0, 0, 0, 0, 0), (FLASH, 10, 4, 6, 20, 10, 8, 0)]
    assert [row["answers"] for row in records(person, f"{KEYS}{key.pk}/?model={FLASH}", "models")] == [9]


def test_what_google_refused_is_listed_newest_first(person: Client, pool: Pool) -> None:
    with time_machine.travel(NOW, tick=False):
        [key, other] = pool("one", "two")
        rest(key, until=NOW + timedelta(hours=1))
        rest(key, "", until=None)
        rest(other, PRO, until=NOW + timedelta(hours=1))
        last, first = records(person, f"{KEYS}{key.pk}/", "exhaustion")
    assert (last["model"], last["until"]) == ("all models", "revived manually")
    assert first == {
        "model": FLASH,
        "why": "requests or tokens per day",
        "limit": 250,
        "since": NOW.isoformat(),
        "until": (NOW + timedelta(hours=1)).isoformat(),
    }


def test_the_last_errors_are_those_of_this_key(person: Client, pool: Pool) -> None:
    [key, other] = pool("one", "two")
    requests = [("fine", 200, [(key.pk, 200)]), ("broken", 500, [(other.pk, 429), (key.pk, 500)])]
    requests += [("others", 404, [(other.pk, 404)]), ("refused", 429, [(key.pk, 429)])]
    finished = [
        FinishedRequest(NOW, name, "POST", "generateContent", FLASH, attempts, status, 0, None, 20)
        for name, status, attempts in requests
    ]
    with connection.cursor() as cursor:
        write_history(cursor, finished, has_log=True)

    rows = records(person, f"{KEYS}{key.pk}/", "errors")
    assert [(row["request_id"], row["status"], row["said"]) for row in rows] == [
        ("refused", 429, "429"),
        ("broken", 500, "500"),
    ]
    assert 'href="/dashboard/requests/?range=24h&amp;q=broken"' in page_of(person, f"{KEYS}{key.pk}/")


def test_the_heat_maps_are_handed_out_as_numbers(person: Client, pool: Pool) -> None:
    [key] = pool("one")
    used(key, 3)
    GeminiModel.objects.begin(FLASH)
    assert records(person, f"{KEYS}{key.pk}/", "days") == [{"day": today(timezone.now()).isoformat(), "answers": 3}]
    assert "table=hours" in page_of(person, f"{KEYS}{key.pk}/")
