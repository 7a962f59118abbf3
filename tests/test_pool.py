"""Adding many keys to the pool."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.db.models import Count

from proxy.models import ApiKey, ExhaustionEvent, GeminiModel, Project, Quota
from proxy.pool.adding import add_keys, count_new
from tests.conftest import FLASH, fake_secret, is_soon, other_connection

NOON = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
MANY = [f"secret-{number:05}" for number in range(1_600)]


@pytest.mark.django_db
def test_new_keys_are_counted_and_known_ones_stay_as_they_are() -> None:
    add_keys([fake_secret("one")], NOON, name="mine", project="p1")

    added = add_keys([fake_secret("one"), fake_secret("two")], NOON, name="hers", project="p2", is_enabled=False)

    assert added == (1, 1)
    rows = ApiKey.objects.order_by("id").values_list("name", "project__name", "is_enabled")
    assert list(rows) == [("mine", "p1", True), ("hers", "p2", False)]


@pytest.mark.django_db
def test_a_key_given_twice_is_added_once() -> None:
    assert add_keys([fake_secret("one")] * 3, NOON) == (1, 0)
    assert ApiKey.objects.count() == Quota.objects.count() == 1


@pytest.mark.django_db
def test_a_key_with_a_name_of_its_own_has_that_one() -> None:
    add_keys([fake_secret("one"), fake_secret("two")], NOON, name="team", names={fake_secret("two"): "hers"})

    assert list(ApiKey.objects.order_by("id").values_list("name", flat=True)) == ["team", "hers"]


@pytest.mark.django_db
def test_nothing_is_added_where_nothing_is_given() -> None:
    assert add_keys([], NOON) == (0, 0)


@pytest.mark.django_db
def test_keys_join_the_rotation_in_the_order_they_were_given() -> None:
    add_keys(MANY[:600], NOON)

    secrets = ApiKey.objects.order_by("id").values_list("secret", flat=True)
    assert list(secrets) == MANY[:600]


@pytest.mark.django_db
def test_a_new_key_has_a_quota_in_every_rotation_and_only_an_enabled_one_is_open() -> None:
    add_keys([fake_secret("one")], NOON)
    GeminiModel.objects.begin(FLASH)

    add_keys([fake_secret("two")], NOON, is_enabled=False)

    quotas = Quota.objects.filter(project__keys__secret=fake_secret("two")).values_list("model_name", "is_open")
    assert set(quotas) == {("", False), (FLASH, False)}


@pytest.mark.django_db
def test_a_new_key_of_a_project_at_rest_rests_too() -> None:
    add_keys([fake_secret("one")], NOON, project="p1")
    until = NOON + timedelta(hours=1)
    key = ApiKey.objects.get()
    event = {"key": key, "project": key.project, "model_name": "", "window": "credits"}
    ExhaustionEvent.objects.create(**event, since=NOON, until=until)

    add_keys([fake_secret("two")], NOON, project="p1")

    quota = Quota.objects.get(project__keys__secret=fake_secret("two"))
    assert (quota.is_open, quota.cooldown_until, quota.opens_at) == (False, until, until)


@pytest.mark.django_db
def test_keys_of_a_named_project_share_it_and_all_others_have_one_each() -> None:
    add_keys([fake_secret("one"), fake_secret("two")], NOON, project="p1")
    add_keys([fake_secret("three")], NOON, project="p1")

    add_keys([fake_secret("four"), fake_secret("five")], NOON)

    assert set(Project.objects.annotate(size=Count("keys")).values_list("name", "size")) == {("p1", 3), ("", 1)}
    assert Project.objects.count() == 3


@pytest.mark.django_db
def test_keys_that_are_known_leave_no_project_behind() -> None:
    add_keys([fake_secret("one")], NOON)

    add_keys([fake_secret("one")], NOON)
    add_keys([fake_secret("one")], NOON, project="p1")

    assert Project.objects.get() == ApiKey.objects.get().project


@pytest.mark.django_db
def test_counting_what_is_new_changes_nothing() -> None:
    add_keys(MANY[:10], NOON)

    assert count_new(MANY) == len(MANY) - 10
    assert ApiKey.objects.count() == 10


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_other_writers_have_their_turn_while_many_keys_are_added() -> None:
    """Another connection keeps writing. Between two of its writes, at most one transaction's keys appear."""
    seen: list[int] = []
    is_over = threading.Event()

    def write_all_the_time() -> None:
        other = other_connection()
        while not is_over.is_set():
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE proxy_apikey SET name = name WHERE id = -1")
            seen.append(other.execute("SELECT COUNT(*) FROM proxy_apikey").fetchone()[0])
            other.execute("COMMIT")
            is_over.wait(0.001)
        other.close()

    writer = threading.Thread(target=write_all_the_time)
    writer.start()
    assert is_soon(lambda: seen)
    try:
        added = add_keys(MANY, NOON)
    finally:
        is_over.set()
        writer.join()

    assert added == (len(MANY), 0)
    between = {count for count in seen if 0 < count < len(MANY)}
    assert between
    assert all(count % 500 == 0 for count in between)


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_the_database_is_free_while_the_import_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def write_instead(seconds: float) -> None:
        other = other_connection()
        other.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")  # would fail at once if the import held the lock
        counts.append(other.execute("SELECT COUNT(*) FROM proxy_apikey").fetchone()[0])
        other.execute("COMMIT")
        other.close()

    monkeypatch.setattr("proxy.pool.adding.time", SimpleNamespace(monotonic=time.monotonic, sleep=write_instead))

    add_keys(MANY, NOON)

    assert counts == [500, 1000, 1500]


@pytest.mark.django_db(transaction=True)
def test_what_was_added_before_a_failure_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class TooLate(Exception):
        pass

    def fail(seconds: float) -> None:
        raise TooLate

    monkeypatch.setattr("proxy.pool.adding.time", SimpleNamespace(monotonic=time.monotonic, sleep=fail))

    with pytest.raises(TooLate):
        add_keys(MANY, NOON)

    assert ApiKey.objects.count() == Quota.objects.count() == 500
    assert not connection.in_atomic_block
    monkeypatch.undo()
    assert add_keys(MANY[:600], NOON) == (100, 500)


Change = Callable[[datetime], int]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["enable", "disable", "forget", "revive"])
def test_a_change_tells_how_many_keys_it_touched(name: str) -> None:
    add_keys(MANY[:3], NOON)
    change: Change = getattr(ApiKey.objects.filter(secret__in=MANY[:2]), name)

    assert change(NOON) == 2
