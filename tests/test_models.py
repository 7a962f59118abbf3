"""Keys, their places in the rotation and what is exhausted, as rows."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, KeyState, Place, key_label
from proxy.pool import add_keys
from proxy.posting import Claim, write_rest
from proxy.refusals import Fault, Refusal, Window
from tests.conftest import FLASH, fake_secret

NOON = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
PRO = "gemini-2.5-pro"
LANES = ["", FLASH, PRO, "gemini-embedding-001"]

pytestmark = pytest.mark.django_db


def add(*names: str, project: str = "", moment: datetime = NOON) -> list[ApiKey]:
    secrets = [fake_secret(name) for name in names]
    add_keys(secrets, moment, project=project)
    return list(ApiKey.objects.filter(secret__in=secrets).order_by("id"))


def refuse(
    key: ApiKey, model_name: str = FLASH, *, until: datetime | None, window: Window = Window.DAY, at: datetime = NOON
) -> None:
    """Book a refusal of `key`, as the ledger does."""
    claim = Claim(key.pk, key.label, key.secret or "", model_name, 0)
    write_rest(claim, Refusal(window), at, until)


def open_keys(model_name: str, moment: datetime = NOON) -> set[int]:
    """Return the ids of keys whose place is open, or has been closed until no later than `moment`."""
    lane = model_name if Place.objects.filter(model_name=model_name).exists() else ""
    places = Place.objects.filter(model_name=lane)
    return {place.key_id for place in places if place.is_open or (place.rests_until and place.rests_until <= moment)}


def test_a_new_key_is_open_for_every_model() -> None:
    [one, two] = add("one", "two")

    assert open_keys(FLASH) == {one.pk, two.pk}


def test_an_exhausted_key_rests_for_that_model_alone() -> None:
    [one, two] = add("one", "two")

    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    assert open_keys(FLASH) == {two.pk}
    assert open_keys(PRO) == {one.pk, two.pk}
    assert open_keys(FLASH, NOON + timedelta(hours=3)) == {one.pk, two.pk}


def test_keys_of_a_project_rest_together() -> None:
    [one, _] = add("one", "two", project="p1")
    [three] = add("three", project="p2")

    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    assert open_keys(FLASH) == {three.pk}


def test_keys_without_a_project_have_nothing_in_common() -> None:
    [one, two] = add("one", "two")

    refuse(one, FLASH, until=None, window=Window.CREDITS)

    assert open_keys(FLASH) == {two.pk}


def test_a_key_without_money_rests_for_all_models_with_or_without_a_rotation_of_their_own() -> None:
    [one, two] = add("one", "two")
    refuse(two, FLASH, until=NOON)

    refuse(one, PRO, until=None, window=Window.CREDITS)

    assert open_keys(FLASH) == {two.pk}
    assert open_keys(PRO) == {two.pk}
    assert open_keys("another-model") == {two.pk}


def test_a_key_added_later_rests_with_its_project() -> None:
    [one] = add("one", project="p1")
    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    [two] = add("two", project="p1")

    assert open_keys(FLASH) == set()
    assert open_keys(PRO) == {one.pk, two.pk}


def test_a_key_that_joins_a_project_at_rest_rests_with_it_and_leaves_it_again() -> None:
    [one] = add("one", project="p1")
    [two] = add("two")
    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    ApiKey.objects.filter(id=two.pk).change(NOON, project="p1")
    with_project = open_keys(FLASH)
    ApiKey.objects.filter(id=two.pk).change(NOON, project="")

    assert with_project == set()
    assert open_keys(FLASH) == {two.pk}


def test_a_key_that_moved_and_is_refused_again_lets_its_new_project_rest() -> None:
    [one] = add("one", project="p1")
    [two] = add("two", project="p2")
    refuse(one, FLASH, until=NOON + timedelta(hours=1))
    ApiKey.objects.filter(id=one.pk).change(NOON, project="p2")

    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    assert two.pk not in open_keys(FLASH)


def test_the_longest_rest_counts() -> None:
    [one] = add("one")

    refuse(one, FLASH, until=NOON + timedelta(hours=3), window=Window.DAY)
    refuse(one, FLASH, until=NOON + timedelta(minutes=1), window=Window.MINUTE)

    assert open_keys(FLASH, NOON + timedelta(hours=2)) == set()
    assert open_keys(FLASH, NOON + timedelta(hours=3)) == {one.pk}


def test_a_refusal_for_the_same_reason_prolongs_the_rest_instead_of_writing_another() -> None:
    [one] = add("one")

    refuse(one, FLASH, until=NOON + timedelta(minutes=1), window=Window.MINUTE)
    refuse(one, FLASH, until=NOON + timedelta(minutes=2), window=Window.MINUTE)

    [event] = ExhaustionEvent.objects.all()
    assert event.until == NOON + timedelta(minutes=2)
    assert event.since == NOON


def test_a_refusal_after_the_rest_is_an_event_of_its_own() -> None:
    [one] = add("one")
    later = NOON + timedelta(hours=1)

    refuse(one, FLASH, until=NOON + timedelta(minutes=1))
    refuse(one, FLASH, until=later + timedelta(minutes=1), at=later)

    assert ExhaustionEvent.objects.count() == 2


def test_enabling_and_disabling_change_the_rotation_of_every_model() -> None:
    [one, two] = add("one", "two")
    refuse(two, FLASH, until=NOON + timedelta(hours=1))

    ApiKey.objects.filter(id=one.pk).disable(NOON)
    disabled = open_keys(FLASH), open_keys(PRO)
    ApiKey.objects.filter(id=one.pk).enable(NOON)

    assert disabled == (set(), {two.pk})
    assert open_keys(FLASH) == {one.pk}
    assert open_keys(PRO) == {one.pk, two.pk}


def test_enabling_a_key_does_not_wake_it_from_its_rest() -> None:
    [one] = add("one")
    refuse(one, FLASH, until=NOON + timedelta(hours=1))

    ApiKey.objects.disable(NOON)
    ApiKey.objects.enable(NOON)

    assert open_keys(FLASH) == set()
    assert open_keys(FLASH, NOON + timedelta(hours=1)) == {one.pk}


def test_a_bad_key_leaves_the_rotation_and_keeps_its_first_reason() -> None:
    [one, two] = add("one", "two")

    ApiKey.objects.filter(id=one.pk).mark_bad(Fault.SUSPENDED, "first " + "x" * 500, NOON)
    changed = ApiKey.objects.filter(id=one.pk).mark_bad(Fault.INVALID, "second", NOON + timedelta(hours=1))

    one.refresh_from_db()
    assert changed == 0
    assert (one.state, one.fault, one.fault_since) == (KeyState.BAD, Fault.SUSPENDED, NOON)
    assert one.fault_reason.startswith("first xxx")
    assert len(one.fault_reason) == 300
    assert open_keys(FLASH) == {two.pk}


def test_a_revived_key_is_back_with_its_whole_project_and_the_history_stays() -> None:
    [one, two] = add("one", "two", project="p1")
    refuse(one, FLASH, until=None, window=Window.NONE)
    refuse(two, PRO, until=None, window=Window.CREDITS)
    ApiKey.objects.filter(id=one.pk).mark_bad(Fault.DENIED, "no", NOON)

    changed = ApiKey.objects.filter(id=one.pk).revive(NOON + timedelta(minutes=5))

    assert changed == 1
    assert open_keys(FLASH) == open_keys(PRO) == {one.pk, two.pk}
    assert set(ExhaustionEvent.objects.values_list("until", flat=True)) == {NOON + timedelta(minutes=5)}


def test_reviving_one_key_leaves_the_others_at_rest() -> None:
    [one, two] = add("one", "two")
    refuse(one, FLASH, until=None, window=Window.NONE)
    refuse(two, FLASH, until=None, window=Window.NONE)

    ApiKey.objects.filter(id=one.pk).revive(NOON)

    assert open_keys(FLASH) == {one.pk}


def test_all_bad_keys_can_be_revived_at_once() -> None:
    add("one", "two", "three")
    ApiKey.objects.order_by("id").mark_bad(Fault.INVALID, "", NOON)

    changed = ApiKey.objects.bad().revive(NOON)

    assert changed == 3
    assert len(open_keys(FLASH)) == 3


def test_a_deleted_key_loses_its_secret_and_keeps_its_history() -> None:
    [one, two] = add("one", "two")
    DailyUsage.objects.create(key=one, model_name=FLASH, day=NOON.date(), answers=5)

    ApiKey.objects.filter(id=one.pk).forget(NOON)

    one.refresh_from_db()
    assert (one.secret, one.state, one.masked) == (None, KeyState.DELETED, "deleted")
    assert one.label == f"key {one.pk} (deleted)"
    assert DailyUsage.objects.get().answers == 5
    assert open_keys(FLASH) == {two.pk}
    assert not ApiKey.objects.filter(id=one.pk).present().exists()


def test_a_deleted_key_comes_back_as_another() -> None:
    [one] = add("one")
    ApiKey.objects.forget(NOON)

    [again] = add("one")

    assert again.pk != one.pk
    assert open_keys(FLASH) == {again.pk}


def test_several_deleted_keys_stand_side_by_side() -> None:
    add("one", "two", "three")

    assert ApiKey.objects.forget(NOON) == 3
    assert ApiKey.objects.filter(secret=None).count() == 3


def test_only_keys_with_nothing_wrong_rest() -> None:
    one, two, three, four = add("one", "two", "three", "four")
    for key in (one, two, three, four):
        refuse(key, FLASH, until=None, window=Window.NONE)

    ApiKey.objects.filter(id=two.pk).disable(NOON)
    ApiKey.objects.filter(id=three.pk).mark_bad(Fault.INVALID, "", NOON)
    ApiKey.objects.filter(id=four.pk).forget(NOON)

    assert set(Place.objects.resting(NOON).values_list("key", "model_name")) == {(one.pk, FLASH)}


def test_a_rest_that_is_over_is_no_rest() -> None:
    [one] = add("one")
    refuse(one, FLASH, until=NOON + timedelta(minutes=1))

    assert Place.objects.resting(NOON).count() == 1
    assert Place.objects.resting(NOON + timedelta(minutes=1)).count() == 0


def state_of_places() -> set[tuple[object, ...]]:
    return set(
        Place.objects.values_list("key", "model_name", "is_open", "rests_until", "last_used", "refusals_in_a_row")
    )


def test_a_model_gets_its_rotation_in_the_order_of_the_common_one() -> None:
    keys = add("one", "two", "three")
    for turn, key in enumerate(reversed(keys), start=1):
        Place.objects.filter(key=key, model_name="").update(last_used=turn)

    Place.objects.add_lane(FLASH)
    Place.objects.add_lane(FLASH)

    order = Place.objects.filter(model_name=FLASH).order_by("last_used").values_list("key", flat=True)
    assert list(order) == [key.pk for key in reversed(keys)]


def test_rebuilding_keeps_the_order_of_rotation_and_the_rows() -> None:
    add("one", "two")
    Place.objects.add_lane(FLASH)
    for turn, place in enumerate(Place.objects.order_by("-id"), start=100):
        Place.objects.filter(id=place.pk).update(last_used=turn, refusals_in_a_row=turn - 99)
    before = state_of_places(), set(Place.objects.values_list("id", flat=True))

    Place.objects.rebuild(ApiKey.objects.all(), NOON)

    assert (state_of_places(), set(Place.objects.values_list("id", flat=True))) == before


def check_places_against_the_definition(moment: datetime) -> None:
    """Compare every place with what keys and events say in so many words."""
    events = list(ExhaustionEvent.objects.all())
    lanes = set(Place.objects.values_list("model_name", flat=True))
    assert {event.model_name for event in events if event.until is None or event.until > moment} <= lanes | {""}
    for key in ApiKey.objects.all():
        places = {place.model_name: place for place in Place.objects.filter(key=key)}
        assert set(places) == lanes
        is_usable = key.is_enabled and not key.fault and key.deleted_at is None
        for lane, place in places.items():
            untils = [
                event.until
                for event in events
                if event.model_name in ("", lane)
                and (event.until is None or event.until > moment)
                and (event.key_id == key.pk or (event.project and event.project == key.project))
            ]
            is_rest_over = place.rests_until is not None and place.rests_until <= moment
            assert (place.is_open or is_rest_over) == (is_usable and not untils), (key.pk, lane)
            if is_usable and untils:
                ends = [until for until in untils if until]
                assert place.rests_until == (max(ends) if len(ends) == len(untils) else None)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_places_say_what_keys_and_events_say(seed: int) -> None:
    chance = random.Random(seed)
    moment = NOON
    add("first", project="p1", moment=moment)
    for step in range(40):
        some = ApiKey.objects.filter(id__in=chance.sample(list(ApiKey.objects.values_list("id", flat=True)), 1))
        action = chance.choice(
            ["add", "refuse", "refuse", "refuse", "switch", "bad", "revive", "forget", "move", "wait"]
        )
        if action == "add":
            add(
                *(f"{step}-{n}" for n in range(chance.randint(1, 3))),
                project=chance.choice(["", "p1", "p2"]),
                moment=moment,
            )
        elif action == "refuse":
            window = chance.choice(list(Window))
            is_for_good = window in (Window.NONE, Window.CREDITS)
            until = None if is_for_good else moment + timedelta(seconds=chance.randint(1, 4000))
            refuse(some.get(), chance.choice(LANES[1:]), until=until, window=window, at=moment)
        elif action == "switch":
            some.change(moment, is_enabled=chance.choice([True, False]))
        elif action == "bad":
            some.mark_bad(chance.choice(list(Fault)), "reason", moment)
        elif action == "revive":
            some.revive(moment)
        elif action == "forget" and chance.random() < 0.3:
            some.forget(moment)
        elif action == "move":
            some.change(moment, project=chance.choice(["", "p1", "p2"]))
        elif action == "wait":
            moment += timedelta(seconds=chance.randint(0, 3000))
        check_places_against_the_definition(moment)

    Place.objects.rebuild(ApiKey.objects.all(), moment)
    once = state_of_places()
    Place.objects.rebuild(ApiKey.objects.all(), moment)
    assert state_of_places() == once
    check_places_against_the_definition(moment)


def test_lost_places_come_back_with_a_rebuild() -> None:
    [one, two] = add("one", "two")
    refuse(one, FLASH, until=NOON + timedelta(hours=1))
    before = set(Place.objects.values_list("key", "model_name", "is_open", "rests_until"))

    Place.objects.filter(key=one).delete()
    Place.objects.filter(key=two).update(is_open=False)
    Place.objects.rebuild(ApiKey.objects.all(), NOON)

    assert set(Place.objects.values_list("key", "model_name", "is_open", "rests_until")) == before


def test_more_than_a_chunk_of_keys_is_rebuilt() -> None:
    add_keys([f"secret-{n:04}" for n in range(501)], NOON)

    ApiKey.objects.disable(NOON)

    assert Place.objects.filter(is_open=True).count() == 0
    assert Place.objects.count() == 501


def test_rebuilding_a_hundred_keys_asks_no_more_than_rebuilding_two(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    add_keys([f"secret-{n:04}" for n in range(100)], NOON)
    few = ApiKey.objects.filter(secret__in=["secret-0000", "secret-0001"])
    with CaptureQueriesContext(connection) as asked:
        Place.objects.rebuild(few, NOON)

    with django_assert_num_queries(len(asked)):
        Place.objects.rebuild(ApiKey.objects.all(), NOON)


def test_a_refusal_asks_no_more_in_a_large_pool(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    [one] = add("one")
    refuse(one, FLASH, until=NOON + timedelta(minutes=1))
    with CaptureQueriesContext(connection) as asked:
        refuse(one, FLASH, until=NOON + timedelta(minutes=2))
    add_keys([f"secret-{n:04}" for n in range(100)], NOON)

    with django_assert_num_queries(len(asked)):
        refuse(one, FLASH, until=NOON + timedelta(minutes=3))


IMPOSSIBLE = [
    "a secret twice",
    "no secret, not deleted",
    "deleted, with a secret",
    "two places for a model",
    "two rows of usage",
    "fewer than no answers",
]


def impossible_row(name: str, key: ApiKey) -> Model:
    day = NOON.date()
    rows: dict[str, Model] = {
        "a secret twice": ApiKey(secret=key.secret),
        "no secret, not deleted": ApiKey(secret=None),
        "deleted, with a secret": ApiKey(secret=fake_secret("two"), deleted_at=NOON),
        "two places for a model": Place(key=key, model_name=""),
        "two rows of usage": DailyUsage(key=key, model_name=FLASH, day=day),
        "fewer than no answers": DailyUsage(key=key, model_name=PRO, day=day, answers=-1),
    }
    return rows[name]


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_the_database_itself_refuses_what_cannot_be(name: str) -> None:
    [key] = add("one")
    DailyUsage.objects.create(key=key, model_name=FLASH, day=NOON.date())

    with pytest.raises(IntegrityError), transaction.atomic():
        impossible_row(name, key).save()


@pytest.mark.parametrize("name", ["", "Anna's"])
def test_no_row_shows_a_secret_when_it_is_printed(name: str) -> None:
    [key] = add("one")
    ApiKey.objects.filter(id=key.pk).update(name=name)
    key.refresh_from_db()
    Place.objects.add_lane(FLASH)
    DailyUsage.objects.create(key=key, model_name=FLASH, day=NOON.date(), answers=3)
    refuse(key, FLASH, until=None, window=Window.NONE)
    claim = Claim(key.pk, key.label, key.secret or "", FLASH, 0)

    rows = [key, claim, *Place.objects.all(), *DailyUsage.objects.all(), *ExhaustionEvent.objects.all()]

    for row in rows:
        assert fake_secret("one") not in f"{row} {row!r}"
        assert (name or f"key {key.pk}") in str(row)
    assert key.label.endswith("…0one")


def test_a_key_is_called_by_its_name_or_number() -> None:
    assert key_label(7, "", fake_secret("one")) == "key 7 …0one"
    assert key_label(7, "Anna's", fake_secret("one")) == "Anna's …0one"
    assert key_label(7, "Anna's", None) == "Anna's (deleted)"
    assert key_label(7, "", "short") == "key 7 …"


def test_the_migrations_say_what_the_models_say() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
