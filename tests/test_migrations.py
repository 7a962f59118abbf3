"""Migrations from the first release to the newest: nothing is lost, and computed columns are right."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Project, Quota, Use
from tests.conftest import FLASH, fake_secret
from tests.databases import ServiceDatabase

PRO = "gemini-2.5-pro"
LONG_AGO = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
# What a key of the first release is: the project's name, and what is wrong with it.
KEYS: dict[str, dict[str, Any]] = {
    "alone": {"name": "Anna's"},
    "alone too": {},
    "p1 first": {"project": "p1"},
    "p1 second": {"project": "p1"},
    "p2 disabled": {"project": "p2", "is_enabled": False},
    "p2 usable": {"project": "p2"},
    "disabled": {"is_enabled": False},
    "bad": {"fault": "suspended", "fault_reason": "no", "fault_since": LONG_AGO},
    "deleted": {"secret": None, "deleted_at": LONG_AGO},
    "p3 deleted": {"project": "p3", "secret": None, "deleted_at": LONG_AGO},
    "moved": {"project": "p2"},
    "moved from nowhere": {"project": "p4"},
    "penniless": {},
    "may not": {"project": "p5"},
}
# What ran out: key, its project at that time, model, window, and in how many hours that is over (None: never).
EVENTS: list[tuple[str, str, str, str, int | None]] = [
    ("alone", "", FLASH, "day", 5),
    ("alone", "", FLASH, "minute", 1),
    ("alone too", "", FLASH, "day", -5),
    ("p1 first", "p1", PRO, "day", 3),
    ("p1 second", "p1", "", "credits", -1),
    ("penniless", "", "", "credits", None),
    ("may not", "p5", PRO, "none", None),
    ("may not", "p5", PRO, "day", 2),
    ("deleted", "", FLASH, "day", 4),
    ("moved", "p-gone", FLASH, "day", 6),
    ("moved", "p1", FLASH, "unknown", 7),
    ("moved from nowhere", "", FLASH, "day", 8),
]


def migrate(*names: str) -> Any:
    """Migrate to these migrations, or to the newest ones, and return the models as they are there."""
    executor = MigrationExecutor(connection)
    targets = [("proxy", name) for name in names] or executor.loader.graph.leaf_nodes("proxy")
    executor.migrate(targets)
    return executor.loader.project_state(targets).apps


@pytest.fixture
def empty_database(transactional_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the database with an empty one: migrations cannot be reversed."""
    connection.close()
    database = ServiceDatabase(tmp_path / "first.sqlite3")
    database.create(is_migrated=False)
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "NAME", database.name or str(database.file))
        yield
        connection.close()


def fill_first_release(apps: Any, moment: datetime) -> None:
    """Write rows as the first release did, with two models."""
    api_keys, events, usage, places = (
        apps.get_model("proxy", name).objects for name in ("ApiKey", "ExhaustionEvent", "DailyUsage", "Place")
    )
    for label, values in KEYS.items():
        key = api_keys.create(**{"name": label, "secret": fake_secret(label), **values})
        api_keys.filter(pk=key.pk).update(created_at=LONG_AGO + key.pk * HOUR)
        usage.create(key=key, model_name=FLASH, day=LONG_AGO.date(), answers=key.pk, prompt_tokens=7)
        for turn, model_name in enumerate(["", FLASH, PRO]):
            places.create(key=key, model_name=model_name, last_used=turn)
    keys = {label: api_keys.get(name=values.get("name", label)) for label, values in KEYS.items()}
    for number, (label, project, model_name, window, hours) in enumerate(EVENTS):
        until = None if hours is None else moment + hours * HOUR
        event = {"key": keys[label], "project": project, "model_name": model_name, "window": window}
        events.create(**event, limit=number, since=LONG_AGO, until=until)


def rows(apps: Any, name: str, *fields: str) -> list[tuple[object, ...]]:
    return list(apps.get_model("proxy", name).objects.order_by("id").values_list("id", *fields))


KEY_FIELDS = ("name", "secret", "is_enabled", "fault", "fault_reason", "fault_since", "created_at", "deleted_at")
EVENT_FIELDS = ("key", "model_name", "window", "limit", "since", "until")
Before = dict[str, list[tuple[object, ...]]]
USAGE_FIELDS = tuple(field.attname for field in DailyUsage._meta.concrete_fields if field.name != "id")


@pytest.fixture
def migrated(empty_database: None) -> Before:
    """Migrate a database of the first release. Return the rows that must still be there."""
    apps = migrate("0001_pool")
    fill_first_release(apps, timezone.now())
    before = {
        "keys": rows(apps, "ApiKey", *KEY_FIELDS),
        "projects": rows(apps, "ApiKey", "project"),
        "events": rows(apps, "ExhaustionEvent", *EVENT_FIELDS),
        "usage": rows(apps, "DailyUsage", *USAGE_FIELDS),
    }
    migrate()
    return before


def key_of(label: str) -> ApiKey:
    return ApiKey.objects.get(name=KEYS[label].get("name", label))


def quotas() -> dict[tuple[int, str], Any]:
    """Return all columns of all quotas, by project and model."""
    return {(row["project_id"], row["model_name"]): row for row in Quota.objects.values()}


def test_no_key_no_event_and_no_usage_is_lost(migrated: Before) -> None:
    assert len(migrated["keys"]) == len(KEYS)
    assert len(migrated["events"]) == len(EVENTS)
    assert list(ApiKey.objects.order_by("id").values_list("id", *KEY_FIELDS)) == migrated["keys"]
    assert list(ExhaustionEvent.objects.order_by("id").values_list("id", *EVENT_FIELDS)) == migrated["events"]
    assert list(DailyUsage.objects.order_by("id").values_list("id", *USAGE_FIELDS)) == migrated["usage"]


def test_keys_of_a_named_project_share_it_and_all_others_have_one_each(migrated: Before) -> None:
    assert list(ApiKey.objects.order_by("id").values_list("id", "project__name")) == migrated["projects"]
    unnamed = ApiKey.objects.filter(project__name="")
    assert unnamed.count() == unnamed.values("project").distinct().count() == 6
    named = ApiKey.objects.exclude(project__name="")
    assert named.values("project").distinct().count() == 5
    assert Project.objects.filter(name="").count() == 6
    assert set(Project.objects.exclude(name="").values_list("name", flat=True)) == {
        *("p1", "p2", "p3", "p4", "p5", "p-gone")
    }


def test_exhaustion_stays_with_its_project(migrated: Before) -> None:
    found = list(ExhaustionEvent.objects.order_by("id").select_related("project", "key__project"))

    for event, (label, project, *_) in zip(found, EVENTS, strict=True):
        assert event.key == key_of(label)
        if project:
            assert event.project.name == project
        else:  # nobody knew; it was the one that is known now
            assert event.project == event.key.project


def test_quotas_are_as_keys_and_exhaustion_say(migrated: Before) -> None:
    """Recomputing everything changes nothing, and the result is right."""
    before = quotas()
    moment = timezone.now()

    Quota.objects.recompute(Project.objects.values_list("id", flat=True), moment)

    assert quotas() == before
    assert len(before) == Project.objects.count() * 3
    states = {
        label: [
            "open"
            if quota["is_open"]
            else "barred"
            if quota["is_barred"]
            else round((quota["opens_at"] - moment) / HOUR)
            for quota in (before[key_of(label).project_id, name] for name in ("", FLASH, PRO))
        ]
        for label in KEYS
    }
    assert states == {
        "alone": ["open", 5, "open"],
        "alone too": ["open"] * 3,
        "p1 first": ["open", 7, 3],
        "p1 second": ["open", 7, 3],
        "p2 disabled": ["open"] * 3,
        "p2 usable": ["open"] * 3,
        "disabled": ["barred"] * 3,
        "bad": ["barred"] * 3,
        "deleted": ["barred"] * 3,
        "p3 deleted": ["barred"] * 3,
        "moved": ["open"] * 3,
        "moved from nowhere": ["open", 8, "open"],
        "penniless": ["barred"] * 3,
        "may not": ["open", "open", "barred"],
    }


def test_models_keep_their_rotations(migrated: Before) -> None:
    assert set(GeminiModel.objects.values_list("model_name", "is_known", "counts_as")) == {
        (FLASH, True, ""),
        (PRO, True, ""),
    }


def test_a_key_that_was_bad_before_is_checked_again(migrated: Before) -> None:
    due = ApiKey.objects.take_due_checks(timezone.now())

    assert due == [key_of("bad")]


def test_a_pool_without_keys_is_migrated(empty_database: None) -> None:
    migrate("0001_pool")

    migrate()

    assert not Project.objects.exists()
    assert not Quota.objects.exists()
    assert not GeminiModel.objects.exists()


def test_what_was_used_in_the_last_minute_still_counts(empty_database: None) -> None:
    before = migrate("0008_key_checks")
    project = before.get_model("proxy", "Project").objects.create(name="p1")
    quota = before.get_model("proxy", "Quota").objects.create(project=project, model_name=FLASH)
    before.get_model("proxy", "Use").objects.create(quota=quota, tenth=17, requests=3, tokens=40)
    migrate()
    assert list(Use.objects.values_list("quota", "tenth", "requests", "tokens")) == [(quota.pk, 17, 3, 40)]
