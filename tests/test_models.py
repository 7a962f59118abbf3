"""Rows of keys, projects and exhaustion events, and the quotas that are computed from them."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import F, Model, Q, Sum
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from proxy.gemini.refusals import Fault, Refusal, Window
from proxy.ledger.bookings import write_refusal
from proxy.ledger.claims import Claim
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, KeyState, Project, Quota, Use, key_label
from proxy.pool.adding import add_keys
from tests.conftest import FLASH, fake_secret

NOON = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
PRO = "gemini-2.5-pro"
MODELS = [FLASH, PRO, "gemini-embedding-001"]

pytestmark = pytest.mark.django_db


def add(*names: str, project: str = "", moment: datetime = NOON) -> list[ApiKey]:
    secrets = [fake_secret(name) for name in names]
    add_keys(secrets, moment, project=project)
    return list(ApiKey.objects.filter(secret__in=secrets).order_by("id"))


def refuse(
    key: ApiKey, model_name: str = FLASH, *, until: datetime | None, window: Window = Window.DAY, at: datetime = NOON
) -> None:
    """Book a refusal of `key`, as the ledger does."""
    claim = Claim(key.pk, key.label, key.secret or "", model_name)
    with connection.cursor() as cursor:
        write_refusal(cursor, claim, Refusal(window), project=None, moment=at, until=until)


def open_keys(model_name: str, moment: datetime = NOON) -> set[int]:
    """Return the IDs of usable keys whose project's quota is open, or opens again by `moment`."""
    rotation = model_name if GeminiModel.objects.filter(model_name=model_name).exists() else ""
    quotas = Quota.objects.filter(Q(is_open=True) | Q(opens_at__lte=moment), model_name=rotation)
    return set(ApiKey.objects.usable().filter(project__quotas__in=quotas).values_list("id", flat=True))


def test_a_new_key_is_open_for_every_model() -> None:
    [one, two] = add("one", "two")

    assert open_keys(FLASH) == {one.pk, two.pk}


def test_an_exhausted_key_is_unavailable_only_for_that_model() -> None:
    [one, two] = add("one", "two")

    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    assert open_keys(FLASH) == {two.pk}
    assert open_keys(PRO) == {one.pk, two.pk}
    assert open_keys(FLASH, NOON + timedelta(hours=3)) == {one.pk, two.pk}


def test_keys_of_a_project_are_limited_together() -> None:
    [one, _] = add("one", "two", project="p1")
    [three] = add("three", project="p2")

    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    assert open_keys(FLASH) == {three.pk}


def test_keys_without_a_project_have_nothing_in_common() -> None:
    [one, two] = add("one", "two")

    refuse(one, FLASH, until=None, window=Window.CREDITS)

    assert open_keys(FLASH) == {two.pk}


def test_a_key_without_credits_is_unavailable_for_all_models_with_or_without_their_own_rotation() -> None:
    [one, two] = add("one", "two")
    refuse(two, FLASH, until=NOON)

    refuse(one, PRO, until=None, window=Window.CREDITS)

    assert open_keys(FLASH) == {two.pk}
    assert open_keys(PRO) == {two.pk}
    assert open_keys("another-model") == {two.pk}


def test_a_key_added_later_shares_the_cooldown_of_its_project() -> None:
    [one] = add("one", project="p1")
    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    [two] = add("two", project="p1")

    assert open_keys(FLASH) == set()
    assert open_keys(PRO) == {one.pk, two.pk}


def test_a_key_shares_the_cooldown_of_a_project_only_while_it_belongs_to_it() -> None:
    [one] = add("one", project="p1")
    [two] = add("two")
    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    ApiKey.objects.filter(id=two.pk).move_to("p1", NOON)
    with_project = open_keys(FLASH)
    ApiKey.objects.filter(id=two.pk).move_to("", NOON)

    assert with_project == set()
    assert open_keys(FLASH) == {two.pk}


def test_a_refusal_after_a_move_limits_the_new_project() -> None:
    [one] = add("one", project="p1")
    [two] = add("two", project="p2")
    refuse(one, FLASH, until=NOON + timedelta(hours=1))
    ApiKey.objects.filter(id=one.pk).move_to("p2", NOON)

    refuse(one, FLASH, until=NOON + timedelta(hours=3))

    assert two.pk not in open_keys(FLASH)


def test_the_longest_cooldown_counts() -> None:
    [one] = add("one")

    refuse(one, FLASH, until=NOON + timedelta(hours=3), window=Window.DAY)
    refuse(one, FLASH, until=NOON + timedelta(minutes=1), window=Window.MINUTE)

    assert open_keys(FLASH, NOON + timedelta(hours=2)) == set()
    assert open_keys(FLASH, NOON + timedelta(hours=3)) == {one.pk}


def test_a_refusal_for_the_same_reason_extends_the_event() -> None:
    [one] = add("one")

    refuse(one, FLASH, until=NOON + timedelta(minutes=1), window=Window.MINUTE)
    refuse(one, FLASH, until=NOON + timedelta(minutes=2), window=Window.MINUTE)

    [event] = ExhaustionEvent.objects.all()
    assert event.until == NOON + timedelta(minutes=2)
    assert event.since == NOON


def test_a_refusal_after_the_cooldown_is_a_new_event() -> None:
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


def test_enabling_a_key_does_not_end_its_cooldown() -> None:
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


def test_reviving_one_key_leaves_the_others_limited() -> None:
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


def test_a_deleted_key_that_is_added_again_is_a_new_key() -> None:
    [one] = add("one")
    ApiKey.objects.forget(NOON)

    [again] = add("one")

    assert again.pk != one.pk
    assert open_keys(FLASH) == {again.pk}


def test_several_deleted_keys_stand_side_by_side() -> None:
    add("one", "two", "three")

    assert ApiKey.objects.forget(NOON) == 3
    assert ApiKey.objects.filter(secret=None).count() == 3


def test_only_usable_keys_are_rate_limited() -> None:
    one, two, three, four = add("one", "two", "three", "four")
    for key in (one, two, three, four):
        refuse(key, FLASH, until=None, window=Window.NONE)

    ApiKey.objects.filter(id=two.pk).disable(NOON)
    ApiKey.objects.filter(id=three.pk).mark_bad(Fault.INVALID, "", NOON)
    ApiKey.objects.filter(id=four.pk).forget(NOON)

    assert set(ApiKey.objects.usable().limited(NOON)) == {one}


def test_a_cooldown_that_has_ended_is_not_counted() -> None:
    [one] = add("one")
    refuse(one, FLASH, until=NOON + timedelta(minutes=1))

    assert set(ApiKey.objects.limited(NOON)) == {one}
    assert not ApiKey.objects.limited(NOON + timedelta(minutes=1)).exists()


def check_quotas_against_the_definition(moment: datetime) -> None:
    """Compare every quota with its keys, events and uses."""
    events = list(ExhaustionEvent.objects.all())
    rotations = {"", *GeminiModel.objects.values_list("model_name", flat=True)}
    assert {event.model_name for event in events if event.until is None or event.until > moment} <= rotations
    for project in Project.objects.all():
        keys = ApiKey.objects.filter(project=project)
        assert project.name or keys.count() == 1
        is_usable = any(key.is_enabled and not key.fault and key.deleted_at is None for key in keys)
        quotas = {quota.model_name: quota for quota in Quota.objects.filter(project=project)}
        assert set(quotas) == rotations
        for model_name, quota in quotas.items():
            untils = [
                event.until
                for event in events
                if event.model_name in ("", model_name)
                and (event.until is None or event.until > moment)
                and event.project_id == project.pk
            ]
            is_due = quota.opens_at is not None and quota.opens_at <= moment
            assert (quota.is_open or is_due) == (is_usable and not untils), (project, model_name)
            assert not (quota.is_open and quota.has_limits)
            if is_usable and untils:
                ends = [until for until in untils if until]
                assert quota.opens_at == (max(ends) if len(ends) == len(untils) else None)
            spent = quota.uses.aggregate(requests=Sum("requests", default=0), tokens=Sum("tokens", default=0))
            assert (quota.minute_requests, quota.minute_tokens) == (spent["requests"], spent["tokens"])


def use(quotas: list[Quota], tokens: int) -> None:
    """Put requests of today into the minute windows of these quotas, as claims do."""
    for quota in quotas:
        tenth = Use.objects.filter(quota=quota).count() + 1  # several projects are used in the same one
        Use.objects.create(quota=quota, tenth=tenth, requests=2, tokens=tokens)
        counts = {"minute_requests": F("minute_requests") + 2, "minute_tokens": F("minute_tokens") + tokens}
        Quota.objects.filter(id=quota.pk).update(**counts)


def state_of_quotas() -> list[Any]:
    return list(Quota.objects.order_by("id").values())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_quotas_say_what_keys_events_and_uses_say(seed: int) -> None:
    chance = random.Random(seed)
    moment = NOON
    add("first", project="p1", moment=moment)
    actions = ["add", *["refuse"] * 3, "use", "limit", "switch", "bad", "revive", "forget", "move", "move", "wait"]
    for step in range(40):
        some = ApiKey.objects.filter(id__in=chance.sample(list(ApiKey.objects.values_list("id", flat=True)), 1))
        action = chance.choice(actions)
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
            refuse(some.get(), chance.choice(MODELS), until=until, window=window, at=moment)
        elif action == "use":
            use(list(Quota.objects.of_models().filter(project__keys__in=some)), chance.randint(0, 1000))
        elif action == "limit":
            quotas = Quota.objects.of_models().filter(project__keys__in=some, model_name=chance.choice(MODELS))
            quotas.set_limits(moment, requests_per_minute=chance.choice([None, 0, 10]))
        elif action == "switch":
            some.change(moment, is_enabled=chance.choice([True, False]))
        elif action == "bad":
            some.mark_bad(chance.choice(list(Fault)), "reason", moment)
        elif action == "revive":
            some.revive(moment)
        elif action == "forget" and chance.random() < 0.3:
            some.forget(moment)
        elif action == "move":
            some.move_to(chance.choice(["", "p1", "p2"]), moment)
        elif action == "wait":
            moment += timedelta(seconds=chance.randint(0, 3000))
        check_quotas_against_the_definition(moment)

    everything = list(Project.objects.values_list("id", flat=True))
    Quota.objects.recompute(everything, moment)
    once = state_of_quotas()
    Quota.objects.recompute(everything, moment)
    assert state_of_quotas() == once
    check_quotas_against_the_definition(moment)


def test_a_refusal_needs_no_more_queries_in_a_large_pool(django_assert_num_queries: DjangoAssertNumQueries) -> None:
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
    "no project",
    "two projects of a name",
    "two quotas for a model",
    "two uses in a tenth of a second",
    "a limit below 0",
    "two rotations of a model",
    "two rows of usage",
    "fewer than no answers",
]


def impossible_row(name: str, key: ApiKey) -> Model:
    day, project = NOON.date(), key.project
    rows: dict[str, Model] = {
        "a secret twice": ApiKey(secret=key.secret, project=project),
        "no secret, not deleted": ApiKey(secret=None, project=project),
        "deleted, with a secret": ApiKey(secret=fake_secret("two"), project=project, deleted_at=NOON),
        "no project": ApiKey(secret=fake_secret("two")),
        "two projects of a name": Project(name="p1"),
        "two quotas for a model": Quota(project=project, model_name=""),
        "two uses in a tenth of a second": Use(
            quota=Quota.objects.get(model_name=FLASH), tenth=1, requests=1, tokens=1
        ),
        "a limit below 0": Quota(project=project, model_name=PRO, requests_per_day=-1),
        "two rotations of a model": GeminiModel(model_name=FLASH),
        "two rows of usage": DailyUsage(key=key, model_name=FLASH, day=day),
        "fewer than no answers": DailyUsage(key=key, model_name=PRO, day=day, answers=-1),
    }
    return rows[name]


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_the_database_itself_refuses_what_cannot_be(name: str) -> None:
    [key] = add("one", project="p1")
    GeminiModel.objects.begin(FLASH)
    use(list(Quota.objects.of_models()), 10)
    DailyUsage.objects.create(key=key, model_name=FLASH, day=NOON.date())

    with pytest.raises(IntegrityError), transaction.atomic():
        impossible_row(name, key).save(force_insert=True)


@pytest.mark.parametrize("name", ["", "Anna's"])
def test_no_row_shows_a_secret_when_it_is_printed(name: str) -> None:
    [key] = add("one")
    ApiKey.objects.filter(id=key.pk).update(name=name)
    key.refresh_from_db()
    DailyUsage.objects.create(key=key, model_name=FLASH, day=NOON.date(), answers=3)
    refuse(key, FLASH, until=None, window=Window.NONE)
    use(list(Quota.objects.of_models()), 10)
    claim = Claim(key.pk, key.label, key.secret or "", FLASH)

    rows = [key, claim, *DailyUsage.objects.all(), *ExhaustionEvent.objects.all()]
    of_project = [row for model in (Project, GeminiModel, Quota, Use) for row in model._default_manager.all()]

    assert len(rows) == 4
    assert len(of_project) == 5
    assert fake_secret("one") not in "".join(f"{row} {row!r}" for row in [*rows, *of_project])
    for row in rows:
        assert (name or f"key {key.pk}") in str(row)
    assert key.label.endswith("…0one")


def due_checks(at: timedelta) -> list[str]:
    """Return the names of the bad keys that are due for a check this long after noon."""
    return [str(key.name) for key in ApiKey.objects.take_due_checks(NOON + at)]


def add_bad(*names: str, at: timedelta = timedelta()) -> None:
    for name in names:
        add_keys([fake_secret(name)], NOON, name=name)
        ApiKey.objects.filter(name=name).mark_bad(Fault.SUSPENDED, "no", NOON + at)


MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def test_a_bad_key_is_checked_after_ten_minutes_and_then_at_doubling_intervals_up_to_a_day() -> None:
    add_bad("one")

    times = [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 2560 + 1440, 2560 + 2 * 1440]

    early = [due_checks(minute * MINUTE - timedelta(seconds=1)) + due_checks(minute * MINUTE) for minute in times]

    assert early == [["one"]] * len(times)
    assert ApiKey.objects.get().next_check == NOON + (2560 + 3 * 1440) * MINUTE


def test_a_check_is_for_one_caller_only() -> None:
    add_bad("one", "two")

    assert due_checks(10 * MINUTE) == ["one", "two"]
    assert due_checks(10 * MINUTE) == []


def test_the_keys_due_longest_are_checked_first_and_only_so_many_at_once() -> None:
    add_bad("late", at=2 * MINUTE)
    add_bad("first")
    add_bad("second", at=MINUTE)

    first = [key.name for key in ApiKey.objects.take_due_checks(NOON + HOUR, at_most=2)]

    assert first == ["first", "second"]
    assert due_checks(HOUR) == ["late"]


def test_only_bad_keys_are_checked() -> None:
    add("good")
    add_bad("disabled", "revived", "cleared", "deleted")
    ApiKey.objects.filter(name="disabled").disable(NOON)
    ApiKey.objects.filter(name="revived").revive(NOON)
    ApiKey.objects.filter(name="cleared").clear_fault(NOON)
    ApiKey.objects.filter(name="deleted").forget(NOON)

    assert due_checks(HOUR) == ["disabled"]
    assert set(ApiKey.objects.exclude(next_check=None).values_list("name", flat=True)) == {"disabled", "deleted"}


def test_a_key_that_goes_bad_again_is_checked_as_soon_as_the_first_time() -> None:
    add_bad("one")
    ApiKey.objects.put_off_check(NOON + timedelta(days=3))
    ApiKey.objects.clear_fault(NOON + timedelta(days=3))

    ApiKey.objects.mark_bad(Fault.SUSPENDED, "no", NOON + timedelta(days=4))

    assert ApiKey.objects.get().next_check == NOON + timedelta(days=4, minutes=10)


def test_a_key_that_is_marked_bad_twice_keeps_its_next_check() -> None:
    add_bad("one")

    ApiKey.objects.mark_bad(Fault.INVALID, "no", NOON + 5 * MINUTE)

    assert ApiKey.objects.get().next_check == NOON + 10 * MINUTE


def test_a_check_is_put_off_for_bad_keys_alone_also_when_the_clock_was_set_back() -> None:
    add("good")
    add_bad("bad")

    put_off = ApiKey.objects.put_off_check(NOON - HOUR)

    assert put_off == 1
    assert ApiKey.objects.get(name="bad").next_check == NOON - 50 * MINUTE
    assert ApiKey.objects.get(name="").next_check is None


def test_a_bad_key_without_a_next_check_is_checked_at_once() -> None:
    """Keys that went bad before there were such checks."""
    add_bad("one")
    ApiKey.objects.update(next_check=None)

    assert due_checks(timedelta()) == ["one"]
    assert due_checks(timedelta()) == []


@pytest.mark.django_db(transaction=True)
def test_of_many_who_look_at_once_each_gets_other_keys() -> None:
    add_bad(*(f"key{number}" for number in range(20)))
    ready = threading.Barrier(4)

    def look() -> list[str]:
        ready.wait()
        try:
            return [str(key.name) for key in ApiKey.objects.take_due_checks(NOON + HOUR, at_most=10)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as executor:
        found = [name for done in [executor.submit(look) for _ in range(4)] for name in done.result()]

    assert sorted(found) == sorted(f"key{number}" for number in range(20))


def test_a_key_is_called_by_its_name_or_number() -> None:
    assert key_label(7, "", fake_secret("one")) == "key 7 …0one"
    assert key_label(7, "Anna's", fake_secret("one")) == "Anna's …0one"
    assert key_label(7, "Anna's", None) == "Anna's (deleted)"
    assert key_label(7, "", "short") == "key 7 …"


def test_the_migrations_say_what_the_models_say() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
