"""Who did what: every user action leaves one entry without a key in it, and a page shows them."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from proxy.accounts.activity import note
from proxy.ledger.retention import prune
from proxy.models import ApiKey, GeminiModel, Project, Quota
from proxy.models.history import ACTIVITY_DAYS
from proxy.pool.adding import add_keys
from proxy.pool.key_check import Verdict
from tests.conftest import FLASH, fake_secret

pytestmark = pytest.mark.django_db
KEYS, QUOTAS = "/admin/proxy/apikey/", "/admin/proxy/quota/"


@pytest.fixture
def user() -> User:
    return User.objects.create_superuser("somebody")


@pytest.fixture
def person(user: User, monkeypatch: pytest.MonkeyPatch) -> Client:
    for place in ("proxy.pool.actions",):  # nobody asks Google here
        monkeypatch.setattr(f"{place}.check_keys", lambda keys, _moment: [(key, Verdict.GOOD, "") for key in keys])
    client = Client()
    client.force_login(user)
    return client


def keys(*names: str) -> list[ApiKey]:
    for name in names:
        add_keys([fake_secret(f"{name}-1234")], timezone.now(), name=name)
    return list(ApiKey.objects.order_by("id"))


def entries() -> list[tuple[str, str]]:
    """Return the actions and their objects, oldest first. Check that each has a user and no secret."""
    secrets = [key.secret for key in ApiKey.objects.all() if key.secret] + [fake_secret("gone")]
    for entry in LogEntry.objects.select_related("user"):
        assert entry.user.get_username() == "somebody"
        assert not [secret for secret in secrets if secret in entry.change_message + entry.object_repr]
    found = LogEntry.objects.order_by("id")
    return [(entry.change_message.removesuffix(f": {entry.object_repr}"), entry.object_repr) for entry in found]


def exported(person: Client, query: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = person.get(f"/dashboard/activity/?format=json&{query}").json()["activity"]
    return rows


@pytest.mark.parametrize(
    ("action", "done"),
    [
        ("enable", "Enabled"),
        ("disable", "Disabled"),
        ("revive", "Revived"),
        ("check", "Checked with Google"),
        ("delete_selected", "Deleted"),
    ],
)
def test_an_action_of_the_admin_leaves_one_entry(person: Client, action: str, done: str) -> None:
    chosen = [key.pk for key in keys("one", "two")]

    person.post(KEYS, {"action": action, "_selected_action": chosen, "post": "yes"})

    assert entries() == [(done, "one …1234, two …1234 (2)")]


def test_the_button_of_a_key_its_form_and_its_deletion_leave_entries(person: Client) -> None:
    [key] = keys("one")

    person.post(f"{KEYS}{key.pk}/check/")
    person.post(f"{KEYS}{key.pk}/change/", {"name": "new", "project_name": "p", "is_enabled": "on"})
    person.post(f"{KEYS}{key.pk}/delete/", {"post": "yes"})

    rows = exported(person)
    assert [row["what"] for row in rows] == ["Deleted", "Changed Name and Google project.", "Checked with Google"]
    assert [row["on_which"] for row in rows] == ["new …1234", "new …1234", "one …1234"]
    assert {row["who"] for row in rows} == {"somebody"}
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(key.pk)] * 3
    assert len(entries()) == 3


def test_pasted_keys_leave_one_entry(person: Client) -> None:
    pasted = "\n".join(fake_secret(f"{number:04}") for number in range(12))

    person.post(f"{KEYS}add/", {"secrets": pasted, "name": "lot", "project_name": ""})
    person.post(f"{KEYS}add/", {"secrets": pasted, "name": "lot", "project_name": ""})

    assert entries() == [("Added", "lot …0000, lot …0001, lot …0002, lot …0003, lot …0004 (12)")]


def test_limits_that_are_forgotten_or_set_leave_an_entry(person: Client) -> None:
    [key] = keys("one")
    GeminiModel.objects.begin(FLASH)
    quota = Quota.objects.get(model_name=FLASH)
    before = str(quota)

    person.post(QUOTAS, {"action": "forget_learned", "_selected_action": [quota.pk]})
    limits = {"quotas-0-id": quota.pk, "quotas-0-project": key.project_id, "quotas-0-requests_per_day": 7}
    counts = {"quotas-TOTAL_FORMS": 1, "quotas-INITIAL_FORMS": 1}
    person.post(f"/admin/proxy/project/{key.project_id}/change/", {"name": "p", **limits, **counts})

    assert Quota.objects.get(model_name=FLASH).requests_per_day == 7
    set_by_hand, forgotten = exported(person)
    assert (forgotten["what"], forgotten["on_which"]) == ("Forgot limits reported by Google", before)
    assert "Requests per day" in set_by_hand["what"]
    assert FLASH in set_by_hand["what"]


@pytest.mark.parametrize(
    ("action", "done", "to"),
    [
        ("enable", "Enabled", ""),
        ("disable", "Disabled", ""),
        ("check", "Checked with Google", ""),
        ("set_project", "Moved to a project", " → p 1"),
    ],
)
def test_every_action_on_the_dashboard_leaves_an_entry(person: Client, action: str, done: str, to: str) -> None:
    chosen = [key.pk for key in keys("one", "two")]

    person.post("/dashboard/keys/", {"action": action, "chosen": chosen, "project_name": "p 1"})

    assert entries() == [(done, f"one …1234, two …1234 (2){to}")]


def test_an_action_without_effect_leaves_no_entry(person: Client) -> None:
    person.post("/dashboard/keys/", {"action": "disable", "chosen": [999]})
    person.post("/dashboard/keys/", {"action": "disable"})
    person.post(KEYS, {"action": "disable"})

    assert entries() == []


def test_names_are_masked_and_short(user: User) -> None:
    project = Project(name=f"my {fake_secret('gone')}\nkey")

    note(user, "Enabled", [ApiKey(pk=1, name="x" * 100, secret="s" * 20)] * 4, to=str(project))

    [(done, objects)] = entries()
    assert done == "Enabled"
    assert len(objects) == 200
    assert objects.endswith("… (4) → my …gone key")


def test_an_entry_of_thousands_of_keys_takes_as_many_queries_as_one_of_two(
    user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    keys("one", "two")
    note(user, "Enabled", ApiKey.objects.all())
    with CaptureQueriesContext(connection) as few:
        note(user, "Enabled", ApiKey.objects.all())
    add_keys([fake_secret(f"{number:05}") for number in range(2000)], timezone.now())

    with django_assert_num_queries(len(few)):
        note(user, "Enabled", ApiKey.objects.all())

    assert entries()[-1][1].endswith(" (2,002)")


# The page


def test_the_page_shows_who_did_what_newest_first(person: Client, user: User) -> None:
    [key] = keys("one")
    note(user, "Enabled", [key])
    note(User.objects.create_user("another"), "Disabled", [key])

    rows = exported(person)
    page = person.get("/dashboard/activity/").content.decode()

    assert [(row["who"], row["what"]) for row in rows] == [("another", "Disabled"), ("somebody", "Enabled")]
    assert {row["kind"] for row in rows} == {"API key"}
    assert f'<a href="/dashboard/keys/{key.pk}/?range=24h">one …1234</a>' in page
    assert person.get("/dashboard/activity/?format=csv").content.decode().count("one …1234") == 2
    assert [row["who"] for row in exported(person, f"person={user.pk}")] == ["somebody"]


def test_the_page_leads_to_older_entries(person: Client, user: User) -> None:
    [key] = keys("one")
    for _ in range(60):
        note(user, "Enabled", [key])
    first = person.get(f"/dashboard/activity/?person={user.pk}")

    second = person.get("/dashboard/activity/" + first.context["older"])

    assert len(first.context["tables"]["activity"].rows) == 50
    assert len(second.context["tables"]["activity"].rows) == 10
    assert (second.context["older"], first.context["newer"]) == ("", "")
    assert f"person={user.pk}" in second.context["newer"]


def test_the_page_costs_as_many_queries_with_many_entries_as_with_few(person: Client, user: User) -> None:
    [key] = keys("one")
    numbers = []
    for times in (2, 40):
        for _ in range(times):
            note(user, "Enabled", [key])
        with CaptureQueriesContext(connection) as queries:
            person.get("/dashboard/activity/")
        numbers.append(len(queries))

    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("query", ["person=x&before=y", "person=-1", "before=99999999999999999999", "person=²"])
def test_the_page_takes_any_address(person: Client, query: str) -> None:
    assert person.get(f"/dashboard/activity/?{query}").status_code == 200


def test_entries_of_others_are_shown_masked(person: Client, user: User) -> None:
    LogEntry.objects.create(
        user=user, object_repr=fake_secret("gone"), action_flag=2, change_message=f"Wrote {fake_secret('gone')}"
    )
    LogEntry.objects.create(user=user, object_repr="a thing", action_flag=3, change_message="")

    deleted, written = exported(person)

    assert (written["what"], written["on_which"]) == ("Wrote …gone", "…gone")
    assert deleted["what"] == "Deletion"


def test_old_entries_go_bit_by_bit(user: User) -> None:
    [key] = keys("one")
    for _ in range(50):
        note(user, "Enabled", [key])
    moment = timezone.now()
    LogEntry.objects.update(action_time=moment - timedelta(days=ACTIVITY_DAYS, seconds=1))
    note(user, "Disabled", [key])

    with connection.cursor() as cursor:
        for _ in range(4):
            prune(cursor, moment, 7, timezone.get_default_timezone())

    assert [done for done, _ in entries()] == ["Disabled"]
