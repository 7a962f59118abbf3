"""Quotas: limits, keys and exhaustion, and projects that turn out to be the same."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Timer

import pytest
from django.db import connection, connections
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from proxy.gemini.refusals import Fault, Limits, Refusal, Window
from proxy.gemini.tokens import Tokens
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim, PoolExhausted
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Project, Quota, Use
from proxy.pool.adding import add_keys
from tests.conftest import FLASH, Clocks, claim_of, fake_secret, locked_database

NOON = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)  # in California, and where `clocks` stop
MIDNIGHT = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
WINDOW = timedelta(seconds=60.2)
PRO = "gemini-2.5-pro"
LATEST = "gemini-flash-latest"

pytestmark = pytest.mark.django_db


def add(*names: str, project: str = "") -> list[ApiKey]:
    secrets = [fake_secret(name) for name in names]
    add_keys(secrets, NOON, project=project)
    return list(ApiKey.objects.filter(secret__in=secrets).order_by("id"))


def quota_of(key: ApiKey, model_name: str = FLASH) -> Quota:
    """Return the quota of the project that `key` belongs to now."""
    return Quota.objects.get(project__keys=key, model_name=model_name)


def limit(key: ApiKey, model_name: str = FLASH, /, **limits: int | None) -> Quota:
    """Set limits for the key's project, as the admin does."""
    GeminiModel.objects.begin(model_name)
    Quota.objects.filter(project__keys=key, model_name=model_name).set_limits(NOON, **limits)
    return quota_of(key, model_name)


def exhaust(key: ApiKey, model_name: str = FLASH, *, until: datetime | None, window: Window = Window.DAY) -> None:
    """Write an exhaustion event of the key's project, and nothing else."""
    GeminiModel.objects.begin(model_name or FLASH)
    ExhaustionEvent.objects.record(key, model_name, Refusal(window), NOON, until)


def settle(*keys: ApiKey, moment: datetime = NOON) -> None:
    Quota.objects.recompute((key.project_id for key in keys), moment)


def use(quota: Quota, *tokens: int) -> None:
    """Put requests of these tokens into the minute window of a quota, 0.1 s apart, without its sums."""
    for tenth, size in enumerate(tokens, start=1):
        Use.objects.create(quota=quota, tenth=tenth, requests=1, tokens=size)


def state_of(quota: Quota) -> tuple[bool, datetime | None, bool]:
    """Return whether the quota is open, when it is recomputed, and whether it is barred."""
    return quota.is_open, quota.opens_at, quota.is_barred


def counts_of(quota: Quota) -> tuple[int, int, int]:
    return quota.minute_requests, quota.minute_tokens, quota.day_requests


def granted(ledger: Ledger, model_name: str = FLASH, *, at_most: int = 100) -> list[Claim]:
    """Claim until no key is left. Every answer is 200."""
    claims: list[Claim] = []
    try:
        while len(claims) < at_most:
            claims.append(claim_of(ledger, model_name))
            ledger.book_answer(claims[-1], 200)
    except PoolExhausted:
        pass
    return claims


# What follows from keys, limits and exhaustion


def test_without_a_limit_a_quota_is_open() -> None:
    [one] = add("one")
    GeminiModel.objects.begin(FLASH)

    settle(one)

    assert state_of(quota_of(one)) == (True, None, False)


@pytest.mark.parametrize(
    "name",
    [
        "requests_per_minute",
        "input_tokens_per_minute",
        "requests_per_day",
        "learned_requests_per_minute",
        "learned_input_tokens_per_minute",
        "learned_requests_per_day",
    ],
)
@pytest.mark.parametrize("value", [0, 10])
def test_a_quota_with_a_limit_is_closed_and_due(name: str, value: int) -> None:
    [one, two] = add("one", "two")

    quota = limit(one, **{name: value})

    assert getattr(quota, name) == value
    assert state_of(quota) == (False, NOON, False)
    assert state_of(quota_of(one, "")) == state_of(quota_of(two)) == (True, None, False)


def test_a_quota_with_a_limit_is_recomputed_when_its_cooldown_ends() -> None:
    [one] = add("one")
    limit(one, requests_per_day=10)
    exhaust(one, until=NOON + HOUR)

    settle(one)

    quota = quota_of(one)
    assert state_of(quota) == (False, NOON + HOUR, False)
    assert quota.cooldown_until == NOON + HOUR


def test_a_quota_with_a_limit_whose_project_has_no_usable_key_does_not_open_by_itself() -> None:
    [one, two] = add("one", "two", project="p1")
    limit(one, requests_per_day=10)

    ApiKey.objects.filter(id=one.pk).disable(NOON)
    with_one = state_of(quota_of(one))
    ApiKey.objects.filter(id=two.pk).mark_bad(Fault.INVALID, "", NOON)
    with_none = state_of(quota_of(one))
    ApiKey.objects.filter(id=two.pk).clear_fault(NOON + HOUR)

    assert with_one == (False, NOON, False)
    assert with_none == (False, None, True)
    assert state_of(quota_of(one)) == (False, NOON + HOUR, False)


def test_an_open_ended_event_bars_a_quota_whatever_else_ends() -> None:
    [one] = add("one")
    exhaust(one, until=NOON + HOUR)
    exhaust(one, "", until=None, window=Window.CREDITS)

    settle(one)

    quota = quota_of(one)
    assert state_of(quota) == state_of(quota_of(one, "")) == (False, None, True)
    assert quota.cooldown_until == NOON + HOUR


def test_recomputing_counts_the_minute_again() -> None:
    [one, two] = add("one", "two")
    GeminiModel.objects.begin(FLASH)
    use(quota_of(one), 100, 20)
    use(quota_of(two), 7)
    Quota.objects.update(minute_requests=9, minute_tokens=-9)

    settle(one)

    quota = quota_of(one)
    assert (quota.minute_requests, quota.minute_tokens) == (2, 120)
    assert quota_of(two).minute_requests == 9


def test_settling_one_model_leaves_the_others_alone() -> None:
    [one] = add("one")
    GeminiModel.objects.begin(FLASH)
    GeminiModel.objects.begin(PRO)
    exhaust(one, "", until=None, window=Window.CREDITS)

    Quota.objects.recompute([one.project_id], NOON, FLASH)

    assert set(Quota.objects.filter(is_barred=True).values_list("model_name", flat=True)) == {FLASH}


def test_settling_keeps_the_order_of_rotation_and_the_rows() -> None:
    keys = add("one", "two")
    limit(keys[0], requests_per_day=3, learned_requests_per_minute=5, most_in_a_minute=4)
    for turn, quota in enumerate(Quota.objects.order_by("-id"), start=100):
        Quota.objects.filter(id=quota.pk).update(last_used=turn, refusals_in_a_row=turn - 99, day_requests=turn)
    Quota.objects.update(day=NOON.date())
    before = list(Quota.objects.order_by("id").values())

    settle(*keys)

    assert list(Quota.objects.order_by("id").values()) == before


def test_lost_quotas_come_back() -> None:
    [one, two] = add("one", "two")
    exhaust(one, until=NOON + HOUR)
    settle(one, two)
    names = ("project", "model_name", "is_open", "opens_at", "cooldown_until", "is_barred")
    before = set(Quota.objects.values_list(*names))

    Quota.objects.filter(project=one.project).delete()
    Quota.objects.filter(project=two.project).update(is_open=False)
    settle(one, two)

    assert set(Quota.objects.values_list(*names)) == before
    assert len(before) == 4


def test_more_than_a_chunk_of_projects_is_settled() -> None:
    add_keys([f"secret-{n:04}" for n in range(501)], NOON)

    ApiKey.objects.disable(NOON)

    assert Quota.objects.filter(is_open=True).count() == 0
    assert Quota.objects.count() == 501


def test_recomputing_a_hundred_projects_needs_no_more_queries_than_two(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    add_keys([f"secret-{n:04}" for n in range(100)], NOON)
    projects = list(Project.objects.values_list("id", flat=True))
    with CaptureQueriesContext(connection) as asked:
        Quota.objects.recompute(projects[:2], NOON)

    with django_assert_num_queries(len(asked)):
        Quota.objects.recompute(projects, NOON)


def test_recomputing_nothing_needs_no_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        Quota.objects.recompute([], NOON, FLASH)


# Limits, as the next claim judges them


@pytest.mark.django_db(transaction=True)
def test_the_next_claim_opens_a_quota_whose_limits_leave_room(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    limit(one, requests_per_minute=2, requests_per_day=10, input_tokens_per_minute=1000)

    claim = claim_of(service)

    assert claim.key_id == one.pk
    assert state_of(quota_of(one)) == (True, None, False)


@pytest.mark.django_db(transaction=True)
def test_the_next_claim_counts_what_the_project_did_today(service: Ledger, clocks: Clocks) -> None:
    [one, two] = add("one", "two", project="p1")
    DailyUsage.objects.create(key=one, model_name=FLASH, day=NOON.date(), answers=3)
    DailyUsage.objects.create(key=two, model_name=FLASH, day=NOON.date(), answers=2)
    DailyUsage.objects.create(key=two, model_name=PRO, day=NOON.date(), answers=50)
    DailyUsage.objects.create(key=two, model_name=FLASH, day=NOON.date() - timedelta(days=1), answers=50)
    limit(one, requests_per_day=5)

    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)

    assert exhausted.value.opens_at == MIDNIGHT
    assert state_of(quota_of(one)) == (False, MIDNIGHT, False)
    clocks.go_on(12 * 3600)
    assert len(granted(service)) == 5


@pytest.mark.django_db(transaction=True)
def test_a_limit_that_is_set_in_the_middle_of_a_minute_counts_that_minute(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    granted(service, at_most=3)
    clocks.go_on(10)
    granted(service, at_most=1)

    limit(one, requests_per_minute=4)

    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)
    assert exhausted.value.opens_at is not None
    assert abs(exhausted.value.opens_at - (NOON + WINDOW)) < timedelta(milliseconds=1)
    clocks.go_on(50.31)
    assert len(granted(service)) == 3


@pytest.mark.django_db(transaction=True)
def test_a_limit_that_is_taken_away_opens_what_it_closed(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    limit(one, requests_per_day=2)
    assert len(granted(service)) == 2

    limit(one, requests_per_day=None)

    assert quota_of(one).is_open
    assert len(granted(service, at_most=5)) == 5


@pytest.mark.django_db(transaction=True)
def test_a_limit_of_0_makes_a_model_unavailable(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    limit(one, requests_per_minute=0)

    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)

    assert exhausted.value.opens_at is None
    assert len(granted(service, PRO, at_most=3)) == 3


def test_rests_that_the_old_limits_led_to_end_with_them_and_others_do_not() -> None:
    keys = add("one", "two", "three", "four", "five", "six")
    for key, window in zip(keys, Window, strict=True):
        exhaust(key, until=None if window is Window.NONE else NOON + HOUR, window=window)
    exhaust(keys[0], PRO, until=NOON + HOUR)
    settle(*keys)

    Quota.objects.filter(model_name=FLASH).set_limits(NOON, requests_per_day=10)

    opens = {window: quota_of(key).opens_at for key, window in zip(keys, Window, strict=True)}
    over, holds = NOON, NOON + HOUR
    assert opens == {
        Window.DAY: over,
        Window.MINUTE: over,
        Window.TOKENS: over,
        Window.NONE: None,
        Window.CREDITS: holds,
        Window.UNKNOWN: holds,
    }
    assert quota_of(keys[0], PRO).opens_at == holds


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("by_hand", "learned", "counts"), [(3, 5, 3), (5, 3, 5), (None, 3, 3), (0, 3, 0), (3, None, 3)]
)
@pytest.mark.parametrize("name", ["requests_per_minute", "requests_per_day"])
def test_a_limit_set_by_hand_wins_over_what_google_reported(
    service: Ledger, clocks: Clocks, *, name: str, by_hand: int | None, learned: int | None, counts: int
) -> None:
    [one] = add("one")

    limit(one, **{name: by_hand, f"learned_{name}": learned})

    assert len(granted(service)) == counts


def test_limits_are_set_only_for_the_given_quota() -> None:
    [one, two] = add("one", "two")
    limit(one, PRO, requests_per_day=7, input_tokens_per_minute=70)

    limit(one, requests_per_day=5)

    assert limits_of(quota_of(one)) == Limits(requests_per_day=5)
    assert limits_of(quota_of(one, PRO)) == Limits(requests_per_day=7, input_tokens_per_minute=70)
    assert limits_of(quota_of(two)) == limits_of(quota_of(one, "")) == Limits()


def limits_of(quota: Quota, prefix: str = "") -> Limits:
    """Return the limits that were set by hand, or with `learned_` those that Google reported."""
    return Limits(**{name: getattr(quota, f"{prefix}{name}") for name in Limits._fields})


def test_reported_limits_can_be_forgotten_and_manual_limits_stay() -> None:
    [one, two] = add("one", "two")
    for key in (one, two):
        limit(
            key,
            requests_per_minute=3,
            learned_requests_per_minute=1,
            learned_input_tokens_per_minute=2,
            learned_requests_per_day=3,
            most_in_a_minute=4,
        )

    Quota.objects.filter(project=one.project, model_name=FLASH).forget_learned(NOON + MINUTE)

    quota = quota_of(one)
    assert (limits_of(quota), limits_of(quota, "learned_")) == (Limits(requests_per_minute=3), Limits())
    assert quota.most_in_a_minute == 0
    assert state_of(quota) == (False, NOON + MINUTE, False)
    assert limits_of(quota_of(two), "learned_") == Limits(1, 2, 3)
    assert quota_of(two).most_in_a_minute == 4


def test_a_quota_of_which_all_is_forgotten_is_open() -> None:
    [one] = add("one")
    limit(one, learned_requests_per_minute=1)

    Quota.objects.forget_learned(NOON)

    assert state_of(quota_of(one)) == (True, None, False)


@pytest.mark.django_db(transaction=True)
def test_a_day_is_counted_again_if_its_keys_did_more_than_was_known(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    limit(one, requests_per_day=10)
    granted(service, at_most=2)
    DailyUsage.objects.update(answers=9)

    Quota.objects.recount()

    assert len(granted(service)) == 1
    assert quota_of(one).day_requests == 10


# A project without a name that turns out to be one with a name


def test_limits_follow_a_key_whose_project_becomes_known() -> None:
    [one] = add("one")
    limit(one, requests_per_day=7, learned_requests_per_minute=5, most_in_a_minute=4)
    use(quota_of(one), 100, 20)
    exhaust(one, PRO, until=NOON + HOUR)

    moved = ApiKey.objects.move_to("p1", NOON)

    one.refresh_from_db()
    quota = quota_of(one)
    assert (moved, one.project.name) == (1, "p1")
    assert (quota.requests_per_day, quota.learned_requests_per_minute) == (7, 5)
    assert quota.most_in_a_minute == 4
    assert (quota.minute_requests, quota.minute_tokens) == (2, 120)
    assert set(Use.objects.values_list("quota", flat=True)) == {quota.pk}
    assert ExhaustionEvent.objects.get().project == one.project
    assert quota_of(one, PRO).opens_at == NOON + HOUR
    assert Project.objects.get() == one.project  # nothing is left of the other


def test_the_limits_of_the_named_project_take_precedence() -> None:
    [one] = add("one", project="p1")
    [two] = add("two")
    limit(one, requests_per_day=1, learned_requests_per_minute=2, most_in_a_minute=3)
    limit(
        two,
        requests_per_day=10,
        requests_per_minute=20,
        learned_requests_per_minute=30,
        learned_requests_per_day=40,
        most_in_a_minute=50,
    )

    ApiKey.objects.filter(id=two.pk).move_to("p1", NOON)

    quota = quota_of(two)
    assert quota == quota_of(one)
    assert limits_of(quota) == Limits(requests_per_minute=20, requests_per_day=1)
    assert limits_of(quota, "learned_") == Limits(requests_per_minute=2, requests_per_day=40)
    assert quota.most_in_a_minute == 50


def test_a_limit_of_no_requests_is_a_limit_and_wins_too() -> None:
    [one] = add("one", project="p1")
    [two] = add("two")
    limit(one, requests_per_day=0)
    limit(two, requests_per_day=10)

    ApiKey.objects.filter(id=two.pk).move_to("p1", NOON)

    assert quota_of(two).requests_per_day == 0


def test_the_minutes_of_both_projects_are_one() -> None:
    [one] = add("one", project="p1")
    [two, three] = add("two", "three")
    GeminiModel.objects.begin(FLASH)
    GeminiModel.objects.begin(PRO)
    use(quota_of(one), 100)
    use(quota_of(two), 20, 3)  # the first of them in the same tenth of a second
    use(quota_of(two, PRO), 5)
    use(quota_of(three), 7)
    settle(one, two, three)

    ApiKey.objects.filter(id=two.pk).move_to("p1", NOON)

    assert counts_of(quota_of(one)) == (3, 123, 0)
    assert counts_of(quota_of(one, PRO)) == (1, 5, 0)
    assert counts_of(quota_of(three)) == (1, 7, 0)
    uses = Use.objects.filter(quota=quota_of(one)).order_by("tenth").values_list("tenth", "requests", "tokens")
    assert list(uses) == [(1, 2, 120), (2, 1, 3)]
    assert Use.objects.count() == 4


def test_a_project_and_a_key_that_joins_it_share_their_cooldowns() -> None:
    [one] = add("one", project="p1")
    [two] = add("two")
    exhaust(one, until=NOON + HOUR)
    exhaust(two, PRO, until=NOON + 2 * HOUR)
    settle(one, two)

    ApiKey.objects.filter(id=two.pk).move_to("p1", NOON)

    assert quota_of(one) == quota_of(two)
    assert (quota_of(one).opens_at, quota_of(one, PRO).opens_at) == (NOON + HOUR, NOON + 2 * HOUR)
    assert state_of(quota_of(one, "")) == (True, None, False)


def test_a_key_that_leaves_a_named_project_takes_nothing_along() -> None:
    [one, two] = add("one", "two", project="p1")
    limit(one, requests_per_day=7)
    use(quota_of(one), 100)
    exhaust(one, PRO, until=NOON + HOUR)

    moved = ApiKey.objects.filter(id=one.pk).move_to("p2", NOON)

    quota = quota_of(one)
    assert moved == 1
    assert (quota.has_limits, state_of(quota), counts_of(quota)) == (False, (True, None, False), (0, 0, 0))
    assert state_of(quota_of(one, PRO)) == (True, None, False)
    assert (quota_of(two).requests_per_day, quota_of(two).minute_requests) == (7, 1)
    assert quota_of(two, PRO).opens_at == NOON + HOUR


def test_a_named_project_keeps_its_limits_while_it_has_no_key() -> None:
    [one] = add("one", project="p1")
    limit(one, requests_per_day=7)
    ApiKey.objects.move_to("", NOON)
    alone = Quota.objects.get(project__name="p1", model_name=FLASH)

    ApiKey.objects.move_to("p1", NOON)

    assert state_of(alone) == (False, None, True)
    assert quota_of(one).requests_per_day == 7
    assert state_of(quota_of(one)) == (False, NOON, False)
    assert Project.objects.count() == 1


def test_a_key_that_is_there_already_does_not_move() -> None:
    add("one", project="p1")
    [two] = add("two")

    assert ApiKey.objects.move_to("p1", NOON) == 1
    assert ApiKey.objects.move_to("p1", NOON) == 0
    assert ApiKey.objects.filter(id=two.pk).move_to("", NOON) == 1
    assert ApiKey.objects.filter(id=two.pk).move_to("", NOON) == 0
    assert Project.objects.count() == 2


def test_keys_whose_project_is_not_known_any_more_have_one_each() -> None:
    keys = add("one", "two", project="p1")

    ApiKey.objects.move_to("", NOON)

    assert quota_of(keys[0], "") != quota_of(keys[1], "")
    assert state_of(quota_of(keys[0], "")) == state_of(quota_of(keys[1], "")) == (True, None, False)


def test_a_deleted_key_and_its_history_move_like_any_other() -> None:
    [one] = add("one")
    exhaust(one, until=NOON + HOUR)
    ApiKey.objects.forget(NOON)

    ApiKey.objects.move_to("p1", NOON)

    assert ExhaustionEvent.objects.get().project.name == "p1"
    assert quota_of(one).is_barred


@pytest.mark.django_db(transaction=True)
def test_the_day_of_a_project_is_counted_with_the_keys_that_join_it(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one", project="p1")
    [two] = add("two")
    limit(one, requests_per_day=10)
    assert len(granted(service, at_most=8)) == 8  # by turns: four each

    ApiKey.objects.filter(id=two.pk).move_to("p1", NOON)

    assert len(granted(service)) == 2
    assert quota_of(one).day_requests == 10


@pytest.mark.django_db(transaction=True)
def test_the_day_of_a_project_is_counted_without_the_keys_that_left_it(service: Ledger, clocks: Clocks) -> None:
    [one, two] = add("one", "two", project="p1")
    limit(one, requests_per_day=10)
    granted(service)
    ApiKey.objects.filter(id=one.pk).revive(NOON)

    ApiKey.objects.filter(id=two.pk).move_to("p2", NOON)
    ApiKey.objects.filter(id=two.pk).disable(NOON)

    assert len(granted(service)) == 5


# Claims that were made before the project became known


@pytest.fixture
def early_claim(service: Ledger, clocks: Clocks) -> Claim:
    """A claim of the last request of a day. The project of its key becomes known before the answer arrives."""
    [key] = add("one")
    limit(key, requests_per_day=3, requests_per_minute=3, input_tokens_per_minute=10_000)
    granted(service, at_most=2)
    claim = claim_of(service, tokens=100)
    assert claim.is_last_of_day
    ApiKey.objects.move_to("p1", NOON)
    assert counts_of(Quota.objects.get(model_name=FLASH))[:2] == (3, 120)
    return claim


@pytest.mark.django_db(transaction=True)
def test_its_answer_is_counted(service: Ledger, early_claim: Claim) -> None:
    service.book_answer(early_claim, 200)

    assert DailyUsage.objects.get().answers == 3
    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)
    assert exhausted.value.opens_at == MIDNIGHT


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fate", ["given back", "corrected", "refused", "bad", "nothing"])
def test_whatever_its_outcome_the_request_leaves_the_minute_window(
    service: Ledger, early_claim: Claim, clocks: Clocks, fate: str
) -> None:
    """It may stay in the minute window of the new project, but not for longer than a minute."""
    match fate:
        case "given back":
            service.give_back(early_claim)
        case "corrected":
            service.book_answer(early_claim, 200)
            service.book_tokens(early_claim, Tokens(prompt=5000))
        case "refused":
            service.book_refusal(early_claim, Refusal(Window.MINUTE))
        case "bad":
            service.book_fault(early_claim, Fault.INVALID, "")
    service.close()
    quota = Quota.objects.get(model_name=FLASH)
    uses = quota.uses.aggregate(requests=Sum("requests"), tokens=Sum("tokens"))
    assert (quota.minute_requests, quota.minute_tokens) == (uses["requests"], uses["tokens"])

    clocks.go_on(61)
    with suppress(PoolExhausted):
        service.give_back(claim_of(service))
    service.close()

    quota.refresh_from_db()
    assert (quota.minute_requests, quota.minute_tokens) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_its_refusal_limits_the_new_project(service: Ledger, early_claim: Claim) -> None:
    service.book_refusal(early_claim, Refusal(Window.MINUTE, limits=Limits(requests_per_minute=2)))
    service.close()

    quota = Quota.objects.get(model_name=FLASH)
    assert quota.learned_requests_per_minute == 2
    assert quota.opens_at == NOON + MINUTE
    assert ExhaustionEvent.objects.get().project == quota.project


@pytest.mark.django_db(transaction=True)
def test_two_who_say_at_once_which_project_a_key_belongs_to_do_not_meet(service: Ledger) -> None:
    """Unless reading is part of the transaction, both read the key before either writes."""
    [one] = add("one")
    names = ["p1", "p2", "p3"]

    def move(name: str) -> int:
        try:
            return ApiKey.objects.move_to(name, NOON)
        finally:
            connections.close_all()

    with locked_database() as let_go, ThreadPoolExecutor(3) as executor:
        Timer(0.3, let_go).start()
        moved = list(executor.map(move, names))

    one.refresh_from_db()
    assert moved == [1, 1, 1]
    assert one.project.name in names
    assert set(Project.objects.values_list("name", flat=True)) == set(names)
    assert state_of(quota_of(one, "")) == (True, None, False)


# Rotations


def test_a_model_gets_its_rotation_in_the_order_of_the_common_one() -> None:
    keys = add("one", "two", "three")
    for turn, key in enumerate(reversed(keys), start=1):
        Quota.objects.filter(project=key.project, model_name="").update(last_used=turn)

    GeminiModel.objects.begin(FLASH)
    GeminiModel.objects.begin(FLASH)

    order = Quota.objects.filter(model_name=FLASH).order_by("last_used").values_list("project", flat=True)
    assert list(order) == [key.project_id for key in reversed(keys)]
    assert GeminiModel.objects.get().model_name == FLASH


def test_a_rotation_begins_with_what_holds_for_all_models() -> None:
    [one, two, three] = add("one", "two", "three")
    exhaust(one, "", until=None, window=Window.CREDITS)
    GeminiModel.objects.all().delete()
    Quota.objects.of_models().delete()
    ApiKey.objects.filter(id=two.pk).disable(NOON)
    settle(one)

    GeminiModel.objects.begin(FLASH)
    began = list(Quota.objects.filter(model_name=FLASH).order_by("project").values())
    settle(one, two, three)

    assert [quota["is_open"] for quota in began] == [False, False, True]
    assert list(Quota.objects.filter(model_name=FLASH).order_by("project").values()) == began


def test_every_project_has_a_quota_in_every_rotation_whichever_came_first() -> None:
    add("one")
    GeminiModel.objects.begin(FLASH)
    add("two")
    GeminiModel.objects.begin(PRO)
    add("three")

    assert Quota.objects.of_models().count() == 6
    assert Quota.objects.count() == 9


def test_a_model_that_a_request_added_becomes_known_and_stays_known() -> None:
    GeminiModel.objects.begin(FLASH, is_known=False)
    before = GeminiModel.objects.get().is_known

    GeminiModel.objects.begin(FLASH)
    GeminiModel.objects.begin(FLASH, is_known=False)

    assert before is False
    assert GeminiModel.objects.get().is_known


def test_clients_begin_no_more_than_a_hundred_rotations() -> None:
    add("one")
    begun = [GeminiModel.objects.begin_if_room(f"model-{number}") for number in range(102)]

    assert begun == [True] * 100 + [False] * 2
    assert GeminiModel.objects.filter(is_known=False).count() == 100
    assert Quota.objects.count() == 101


def test_a_model_reported_by_google_can_always_be_added() -> None:
    [one] = add("one")
    for number in range(100):
        GeminiModel.objects.begin_if_room(f"model-{number}")

    limit(one, requests_per_day=5)

    assert quota_of(one).requests_per_day == 5
    assert GeminiModel.objects.count() == 101


def test_a_model_that_does_not_exist_makes_room_again() -> None:
    [one] = add("one")
    for number in range(100):
        GeminiModel.objects.begin_if_room(f"model-{number}")
    use(quota_of(one, "model-7"), 10)

    GeminiModel.objects.drop_unknown("model-7")

    assert GeminiModel.objects.count() == 99
    assert not Quota.objects.filter(model_name="model-7").exists()
    assert not Use.objects.exists()
    assert GeminiModel.objects.begin_if_room(FLASH)


@pytest.mark.parametrize("name", ["begin", "mark_known"])
def test_a_model_that_was_known_once_keeps_its_rotation(name: str) -> None:
    [one] = add("one")
    GeminiModel.objects.begin_if_room(FLASH)
    getattr(GeminiModel.objects, name)(FLASH)

    GeminiModel.objects.drop_unknown(FLASH)

    assert GeminiModel.objects.count() == 1
    assert quota_of(one)


def test_dropping_what_is_not_there_is_harmless() -> None:
    [one] = add("one")

    GeminiModel.objects.drop_unknown(FLASH)
    GeminiModel.objects.drop_unknown("")

    assert quota_of(one, "").is_open


@pytest.mark.django_db(transaction=True)
def test_the_last_request_of_a_day_that_finds_no_such_model_is_counted(service: Ledger, clocks: Clocks) -> None:
    """A limit was set for a model before Google reported that the model does not exist."""
    [one] = add("one")
    claim = claim_of(service, "no-such-model")
    service.give_back(claim)
    service.close()
    Quota.objects.filter(model_name="no-such-model").set_limits(NOON, requests_per_day=1)
    claim = claim_of(service, "no-such-model")
    assert claim.is_last_of_day

    service.book_answer(claim, 404)

    assert DailyUsage.objects.get(key=one).answers == 1
    assert not GeminiModel.objects.exists()


# Models that count as others


def test_a_model_uses_its_own_quotas_unless_google_reported_otherwise() -> None:
    assert GeminiModel.objects.spent_by(FLASH, "") == FLASH
    assert GeminiModel.objects.spent_by(FLASH, FLASH) == FLASH

    rotation = GeminiModel.objects.get()
    assert (rotation.counts_as, rotation.is_known) == ("", True)


def test_a_model_counts_as_another_until_google_reports_otherwise() -> None:
    add("one")
    before = GeminiModel.objects.spent_by(LATEST, FLASH)
    later = GeminiModel.objects.spent_by(LATEST, "")
    moved_on = GeminiModel.objects.spent_by(LATEST, PRO)
    itself = GeminiModel.objects.spent_by(LATEST, LATEST)

    assert (before, later, moved_on, itself) == (FLASH, FLASH, PRO, LATEST)
    assert dict(GeminiModel.objects.values_list("model_name", "counts_as")) == {LATEST: "", FLASH: "", PRO: ""}
    assert set(GeminiModel.objects.values_list("is_known", flat=True)) == {True}
    assert Quota.objects.of_models().count() == 3


@pytest.mark.django_db(transaction=True)
def test_models_that_count_as_one_spend_one_quota(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    GeminiModel.objects.spent_by(LATEST, FLASH)
    limit(one, requests_per_minute=5)

    names = [claim.model_name for claim in [*granted(service, LATEST, at_most=3), *granted(service, FLASH)]]

    assert names == [LATEST] * 3 + [FLASH] * 2
    assert granted(service, LATEST) == []
    assert counts_of(quota_of(one))[0] == 5
    assert dict(DailyUsage.objects.values_list("model_name", "answers")) == {LATEST: 3, FLASH: 2}


@pytest.mark.django_db(transaction=True)
def test_the_day_of_a_model_counts_the_answers_of_all_that_count_as_it(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    for model_name, answers in ((FLASH, 4), (LATEST, 3), (PRO, 100)):
        DailyUsage.objects.create(key=one, model_name=model_name, day=NOON.date(), answers=answers)
    GeminiModel.objects.spent_by(LATEST, FLASH)
    limit(one, requests_per_day=10)

    assert len(granted(service, LATEST)) == 3


@pytest.mark.django_db(transaction=True)
def test_a_refusal_that_names_another_model_limits_both(service: Ledger, clocks: Clocks) -> None:
    [one] = add("one")
    refusal = Refusal(Window.DAY, None, 20, Limits(requests_per_day=20), FLASH)

    service.book_refusal(claim_of(service, LATEST), refusal)

    for model_name in (FLASH, LATEST):
        with pytest.raises(PoolExhausted) as exhausted:
            claim_of(service, model_name)
        assert exhausted.value.opens_at == MIDNIGHT
    assert ExhaustionEvent.objects.get().model_name == FLASH
    assert limits_of(quota_of(one), "learned_") == Limits(requests_per_day=20)
    assert limits_of(quota_of(one, LATEST), "learned_") == Limits()
