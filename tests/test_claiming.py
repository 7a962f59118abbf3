"""Which key a request gets: known and unknown limits, the order of projects, restarts and clock changes."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError
from django.db.models import Sum
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.gemini.refusals import Refusal, Window, read_refusal
from proxy.gemini.tokens import Tokens
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim, ClaimRequest, PoolExhausted
from proxy.ledger.scheduler import Scheduler
from proxy.models import ApiKey, ExhaustionEvent, GeminiModel, Quota, Use
from tests import gemini_errors as errors
from tests.conftest import FLASH, Clocks, Pool, answers_by_secret, claim_of, claim_request_for, fake_secret, is_soon
from tests.gemini_errors import Reply, Violation

ONE, TWO, THREE = fake_secret("one"), fake_secret("two"), fake_secret("three")
PRO, LATEST = "gemini-2.5-pro", "gemini-flash-latest"
A_WINDOW = 60.5  # a request has left the minute
AMPLE: Any = {"requests_per_minute": 1000, "requests_per_day": 100_000}  # known limits: nothing is left to find out
PER_MINUTE, PER_MINUTE_TOKENS, PER_DAY = errors.PER_MINUTE, errors.TOKENS_PER_MINUTE, errors.PER_DAY


def set_limits(model_name: str = FLASH, secret: str = "", **limits: int | None) -> None:
    """Set limits of all projects, or of the project of one key."""
    GeminiModel.objects.begin(model_name)
    quotas = Quota.objects.filter(model_name=model_name)
    (quotas.filter(project__keys__secret=secret) if secret else quotas).set_limits(timezone.now(), **limits)


def quota_of(secret: str = ONE, model_name: str = FLASH) -> Quota:
    return Quota.objects.get(project__keys__secret=secret, model_name=model_name)


def uses() -> dict[str, int]:
    """Return how many requests the windows of each model hold, without zeros."""
    rows = Use.objects.values_list("quota__model_name").annotate(Sum("requests"))
    return {model_name: requests for model_name, requests in rows if requests}


def waiting_in(ledger: Ledger) -> int:
    """Return how many requests wait. The ledger may change its lines at the same time."""
    return sum(len(line.waiting) for line in list(ledger._writer._waiting._lines.values()))


def refuse(ledger: Ledger, claim: Claim, reply: Reply) -> None:
    refusal = read_refusal(reply.status, json.dumps(reply.body).encode())
    assert refusal
    ledger.book_refusal(claim, refusal)


def refused(*violations: Violation, model_name: str = FLASH) -> Reply:
    """Return a 429 that reports limits, with a retry delay of a second."""
    return errors.quota_exceeded(model_name, *violations, delay_seconds=1.0)


def count_claims(ledger: Ledger, model_name: str = FLASH, at_most: int = 30, **kwargs: Any) -> int:
    """Claim until no key is left. Return the number of claims."""
    for number in range(at_most):
        try:
            claim_of(ledger, model_name, **kwargs)
        except PoolExhausted:
            return number
    return at_most


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Run functions in threads, which must end by the end of the test."""
    with ThreadPoolExecutor(16) as executor:
        yield executor.submit


Later = Callable[[Callable[[], Any]], Future[Any]]


# Limits


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.one_of(st.none(), st.integers(1, 8)),
    tokens=st.one_of(st.none(), st.integers(50, 300)),
    day=st.one_of(st.none(), st.integers(5, 40)),
    steps=st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 20, 59.9, 61, 30_000]), st.integers(1, 120)), max_size=40),
)
def test_no_claim_passes_a_known_limit_and_none_is_refused_while_there_is_room(
    clocks: Clocks,
    service: Ledger,
    pool: Pool,
    *,
    requests: int | None,
    tokens: int | None,
    day: int | None,
    steps: list[tuple[float, int]],
) -> None:
    pool("one")  # known after the first example
    model_name = f"model-{uuid4()}"
    set_limits(model_name, requests_per_minute=requests, input_tokens_per_minute=tokens, requests_per_day=day)
    taken: list[tuple[int, str, int]] = []  # when, on which quota day, with how many tokens

    for seconds, needed in steps:
        clocks.go_on(seconds)
        today = timezone.now().astimezone(django_settings.QUOTA_ZONE).date().isoformat()
        try:
            claim = claim_of(service, model_name, tokens=needed)
        except PoolExhausted:
            claim = None
        now = clocks.elapsed_ns
        minute = [used for moment, _, used in taken if now - moment < 60 * 10**9]
        long_minute = [used for moment, _, used in taken if now - moment < 60.5 * 10**9]
        of_day = sum(its_day == today for _, its_day, _ in taken)
        if claim:
            assert requests is None or len(minute) < requests
            assert tokens is None or not minute or sum(minute) + needed <= tokens
            assert day is None or of_day < day
            service.book_answer(claim, 200)
            taken.append((now, today, needed))
        else:
            has_no_request = requests is not None and len(long_minute) >= requests
            has_no_tokens = tokens is not None and bool(long_minute) and sum(long_minute) + needed > tokens
            assert has_no_request or has_no_tokens or (day is not None and of_day >= day)


@pytest.mark.parametrize(
    ("violations", "name", "count"),
    [
        ([Violation(PER_MINUTE, 3)], "learned_requests_per_minute", 3),
        ([Violation(PER_MINUTE_TOKENS, 45)], "learned_input_tokens_per_minute", 4),
        ([Violation(PER_MINUTE_TOKENS, 25), Violation(PER_MINUTE, 9)], "learned_requests_per_minute", 2),
    ],
    ids=["requests", "tokens", "both"],
)
def test_a_limit_that_a_refusal_reported_is_kept_from_then_on(
    clocks: Clocks, service: Ledger, pool: Pool, *, violations: list[Violation], name: str, count: int
) -> None:
    pool("one")
    refuse(service, claim_of(service), refused(*violations))

    for _ in range(3):
        clocks.go_on(A_WINDOW)
        assert count_claims(service, tokens=10) == count

    [value] = [violation.value for violation in violations if ("Tokens" in violation.quota_id) == ("tokens" in name)]
    assert getattr(quota_of(), name) == value


def test_a_daily_limit_that_was_reported_is_kept_the_next_day(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    for _ in range(5):
        service.book_answer(claim_of(service), 200)
    refuse(service, claim_of(service), errors.quota_exceeded(FLASH, Violation(PER_DAY, 5), delay_seconds=30))
    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)
    assert exhausted.value.opens_at == datetime(2026, 11, 25, 8, tzinfo=UTC)

    clocks.go_on(12 * 3600 + 1)

    assert count_claims(service) == 5


def test_all_limits_of_one_refusal_are_learned(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")

    violations = [Violation(PER_MINUTE, 5), Violation(PER_MINUTE_TOKENS, 250_000), Violation(PER_DAY, 20)]
    refuse(service, claim_of(service), refused(*violations))
    service.close()

    quota = quota_of()
    assert quota.learned_requests_per_minute == 5
    assert quota.learned_input_tokens_per_minute == 250_000
    assert quota.learned_requests_per_day == 20


@pytest.mark.parametrize("by_hand", [2, 8])
def test_a_limit_set_by_hand_wins_over_a_learned_one(clocks: Clocks, service: Ledger, pool: Pool, by_hand: int) -> None:
    pool("one")
    refuse(service, claim_of(service), refused(Violation(PER_MINUTE, 5)))
    service.close()

    set_limits(requests_per_minute=by_hand)
    clocks.go_on(A_WINDOW)

    assert count_claims(service) == by_hand
    assert quota_of().learned_requests_per_minute == 5


def test_a_learned_limit_is_forgotten_when_more_was_accepted(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    refuse(service, claim_of(service), refused(Violation(PER_MINUTE, 2)))
    service.close()
    set_limits(requests_per_minute=4)
    clocks.go_on(A_WINDOW)

    for expected in (2, 2, None):
        service.book_answer(claim_of(service), 200)
        assert quota_of().learned_requests_per_minute == expected


def test_a_learned_limit_is_kept_when_what_passed_it_failed(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    refuse(service, claim_of(service), refused(Violation(PER_MINUTE, 2)))
    service.close()
    set_limits(requests_per_minute=4)
    clocks.go_on(A_WINDOW)

    for _ in range(4):
        service.book_answer(claim_of(service), 500)

    assert quota_of().learned_requests_per_minute == 2


@pytest.mark.parametrize(
    "reply", [errors.limit_zero(FLASH), refused(Violation(PER_DAY, 0))], ids=["limit: 0", "quotaValue 0"]
)
def test_a_project_with_a_limit_of_0_is_unavailable_for_the_model_until_revived(
    clocks: Clocks, service: Ledger, pool: Pool, reply: Reply
) -> None:
    pool("one")
    refuse(service, claim_of(service), reply)

    for _ in range(3):
        clocks.go_on(86_400)
        with pytest.raises(PoolExhausted) as exhausted:
            claim_of(service)
        assert exhausted.value.opens_at is None
    assert claim_of(service, PRO).secret == ONE

    ApiKey.objects.all().revive(timezone.now())

    assert claim_of(service).secret == ONE


@pytest.mark.parametrize("name", ["requests_per_minute", "input_tokens_per_minute", "requests_per_day"])
def test_a_limit_of_0_set_by_hand_leaves_the_model_to_the_others(
    clocks: Clocks, service: Ledger, pool: Pool, name: str
) -> None:
    pool("one", "two")
    set_limits(secret=ONE, **{name: 0})  # type: ignore[arg-type]  # not the secret
    for _ in range(3):
        assert claim_of(service).secret == TWO
        clocks.go_on(86_400)

    ApiKey.objects.filter(secret=TWO).disable(timezone.now())

    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)
    assert exhausted.value.opens_at is None  # not tomorrow, either
    set_limits(secret=ONE, **{name: 7})  # type: ignore[arg-type]
    assert claim_of(service).secret == ONE


def test_true_tokens_replace_the_estimate(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    set_limits(input_tokens_per_minute=100, **AMPLE)
    much, little = claim_of(service, tokens=90), None
    with pytest.raises(PoolExhausted):
        claim_of(service, tokens=50)

    service.book_tokens(much, Tokens(prompt=20))
    little = claim_of(service, tokens=50)
    service.book_tokens(little, Tokens(prompt=80))

    with pytest.raises(PoolExhausted):
        claim_of(service, tokens=1)


def test_a_request_larger_than_the_limit_gets_an_empty_minute(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    set_limits(input_tokens_per_minute=100, **AMPLE)

    claim_of(service, tokens=500)

    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service, tokens=500)
    assert exhausted.value.opens_at is not None
    clocks.go_on(A_WINDOW)
    assert claim_of(service, tokens=500)


# Order


def test_the_project_with_most_left_is_taken_first(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two", "three")
    room = {ONE: 5, TWO: 10, THREE: 7}
    for secret, limit in room.items():
        set_limits(secret=secret, requests_per_minute=limit, requests_per_day=1000)

    for _ in range(22):
        secret = claim_of(service).secret
        assert room[secret] == max(room.values())
        room[secret] -= 1

    assert set(room.values()) == {0}
    with pytest.raises(PoolExhausted):
        claim_of(service)


def test_the_remaining_daily_quota_counts_too(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two")
    set_limits(secret=ONE, requests_per_minute=100, requests_per_day=3)
    set_limits(secret=TWO, requests_per_minute=8, requests_per_day=1000)

    secrets = [claim_of(service).secret for _ in range(11)]

    assert set(secrets[:5]) == {TWO}
    assert Counter(secrets) == {ONE: 3, TWO: 8}


def test_keys_of_one_project_take_turns(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two", "three", project="shared")
    set_limits(**AMPLE)

    secrets = [claim_of(service).secret for _ in range(9)]

    assert secrets == [ONE, TWO, THREE] * 3


def test_keys_of_one_project_share_its_limits(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two", "three", project="shared")
    set_limits(requests_per_minute=4, requests_per_day=1000)

    assert count_claims(service) == 4


def test_a_large_request_waits_and_a_smaller_one_behind_it_does_not_overtake(
    clocks: Clocks, service: Ledger, pool: Pool, later: Later
) -> None:
    pool("one")
    set_limits(input_tokens_per_minute=100, **AMPLE)
    claim_of(service, tokens=80)

    large = later(lambda: claim_of(service, tokens=50, wait_seconds=100))
    assert is_soon(lambda: waiting_in(service) == 1)
    small = later(lambda: claim_of(service, tokens=10, wait_seconds=100))
    assert is_soon(lambda: waiting_in(service) == 2)
    impatient = claim_of(service, tokens=5)
    assert not is_soon(lambda: large.done() or small.done(), 1.2)
    clocks.go_on(A_WINDOW)

    assert [claim.in_minute for claim in (impatient, large.result(5), small.result(5))] == [2, 1, 2]


# Unknown limits


def test_an_unknown_limit_makes_no_request_wait(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")

    claims = [service.claim(claim_request_for(wait_seconds=30)) for _ in range(100)]

    assert [has_waited for _, has_waited in claims] == [False] * 100
    assert [claim.in_minute for claim, _ in claims] == list(range(1, 101))


def test_unproven_requests_spread_over_the_projects_with_the_fewest_of_them_in_flight(
    clocks: Clocks, service: Ledger, pool: Pool
) -> None:
    pool("one", "two", "three")
    claims = [claim_of(service) for _ in range(9)]
    assert Counter(claim.secret for claim in claims) == {ONE: 3, TWO: 3, THREE: 3}
    for claim in claims:
        if claim.secret == TWO:
            service.book_answer(claim, 200)

    assert [claim_of(service).secret for _ in range(3)] == [TWO, TWO, TWO]
    assert {claim_of(service).secret for _ in range(3)} == {ONE, TWO, THREE}


def test_what_a_project_accepted_in_a_minute_before_is_used_up_first(
    clocks: Clocks, service: Ledger, pool: Pool
) -> None:
    pool("one", "two")
    set_limits(secret=TWO, requests_per_minute=0)
    for claim in [claim_of(service) for _ in range(5)]:
        service.book_answer(claim, 200)
    set_limits(secret=TWO, requests_per_minute=None)
    clocks.go_on(A_WINDOW)

    claims = [claim_of(service) for _ in range(9)]

    assert [claim.secret for claim in claims[:5]] == [ONE] * 5
    assert not any(claim.is_unproven for claim in claims[:5])
    assert Counter(claim.secret for claim in claims[5:]) == {ONE: 2, TWO: 2}
    assert all(claim.is_unproven for claim in claims[5:])


def test_proven_room_comes_before_unproven_and_known_limits_are_proven_room(
    clocks: Clocks, service: Ledger, pool: Pool
) -> None:
    pool("one", "two")
    set_limits(secret=TWO, requests_per_minute=4)

    assert [claim_of(service).secret for _ in range(8)] == [TWO] * 4 + [ONE] * 4


def test_the_first_refusal_that_names_a_limit_ends_the_guessing(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    claims = [claim_of(service) for _ in range(10)]
    for claim in claims[:3]:
        service.book_answer(claim, 200)

    for claim in claims[3:]:
        refuse(service, claim, refused(Violation(PER_MINUTE, 3)))

    assert count_claims(service) == 0
    clocks.go_on(A_WINDOW)
    assert count_claims(service) == 3


def test_requests_refused_together_are_one_event(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    """A refusal without a reason doubles the previous cooldown. Refusals in flight at the same time do not."""
    pool("one")
    claims = [claim_of(service) for _ in range(50)]

    for claim in claims:
        refuse(service, claim, errors.bare_429())
        clocks.go_on(0.1)
    service.close()

    event = ExhaustionEvent.objects.get()
    assert event.until == event.since + timedelta(minutes=1)
    assert quota_of().minute_requests == 0


def test_a_project_has_proven_no_more_than_it_accepted_beside_its_refusals(
    clocks: Clocks, service: Ledger, pool: Pool
) -> None:
    pool("one")
    claims = [claim_of(service) for _ in range(10)]

    for claim in claims[:4]:
        refuse(service, claim, errors.bare_429())
    for claim in claims[4:7]:
        service.book_answer(claim, 200)  # the fifth to the seventh of ours, and Google's first three
    for claim in claims[7:]:
        refuse(service, claim, errors.bare_429())
    service.close()

    assert quota_of().most_in_a_minute == 3


# Days


def go_to(clocks: Clocks, moment: datetime) -> None:
    """Start the test at another moment."""
    clocks.set_wall((moment - timezone.now()).total_seconds())


@pytest.mark.parametrize(
    ("noon", "midnight"),
    [
        (datetime(2026, 11, 24, 20, tzinfo=UTC), datetime(2026, 11, 25, 8, tzinfo=UTC)),
        (datetime(2026, 11, 1, 7, 0, 1, tzinfo=UTC), datetime(2026, 11, 2, 8, tzinfo=UTC)),
        (datetime(2026, 10, 31, 20, tzinfo=UTC), datetime(2026, 11, 1, 7, tzinfo=UTC)),
        (datetime(2027, 3, 14, 8, 0, 1, tzinfo=UTC), datetime(2027, 3, 15, 7, tzinfo=UTC)),
        (datetime(2027, 3, 13, 20, tzinfo=UTC), datetime(2027, 3, 14, 8, tzinfo=UTC)),
    ],
    ids=["any day", "a day of 25 hours", "before it", "a day of 23 hours", "before it"],
)
@pytest.mark.parametrize("is_learned", [False, True], ids=["known limit", "refusal"])
def test_an_exhausted_day_ends_at_midnight_pacific(
    clocks: Clocks, service: Ledger, pool: Pool, *, noon: datetime, midnight: datetime, is_learned: bool
) -> None:
    go_to(clocks, noon)
    pool("one")
    if is_learned:
        refuse(service, claim_of(service), errors.per_day_short(FLASH))
    else:
        set_limits(requests_per_minute=100, requests_per_day=2)
        for _ in range(2):
            service.book_answer(claim_of(service), 200)

    for seconds in (1, 3 * 3600, (midnight - noon).total_seconds() - 3 * 3600 - 2):
        clocks.go_on(seconds)
        with pytest.raises(PoolExhausted) as exhausted:
            claim_of(service)
        assert exhausted.value.opens_at == midnight
    assert timezone.now() == midnight - timedelta(seconds=1)
    clocks.go_on(1)

    claim_of(service)
    assert is_learned or count_claims(service) == 1
    [event] = ExhaustionEvent.objects.filter(since__lt=midnight)
    assert (event.window, event.until) == ("day", midnight)


def test_a_day_that_is_not_exhausted_ends_at_midnight_too(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    set_limits(requests_per_minute=100, requests_per_day=3)
    for _ in range(2):
        service.book_answer(claim_of(service), 200)

    clocks.go_on(12 * 3600)

    assert count_claims(service) == 3


# Clocks that are set, machines that restart


@pytest.mark.parametrize("hours", [3, -3, 30, -30, 24 * 400, -24 * 400])
def test_setting_the_wall_clock_passes_no_minute_and_ends_no_cooldown_too_late(
    clocks: Clocks, service: Ledger, pool: Pool, hours: int
) -> None:
    pool("one")
    set_limits(requests_per_minute=2, requests_per_day=1000)
    assert count_claims(service) == 2

    clocks.set_wall(hours * 3600)
    assert count_claims(service) == 0
    clocks.go_on(59)
    assert count_claims(service) == 0
    clocks.go_on(1.5)

    assert count_claims(service) == 2


@pytest.mark.parametrize("hours", [-3, -30])
def test_a_rate_limit_ends_even_if_the_clock_is_set_back(
    clocks: Clocks, service: Ledger, pool: Pool, hours: int
) -> None:
    pool("one")
    service.book_refusal(claim_of(service), Refusal(Window.MINUTE, 30))
    assert count_claims(service) == 0

    clocks.set_wall(hours * 3600)

    assert claim_of(service).secret == ONE  # nobody knows how much of it is over


def test_a_clock_set_over_midnight_and_back_gives_no_day_twice(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    set_limits(requests_per_minute=100, requests_per_day=3)

    def use_day() -> int:
        count = 0
        while True:
            try:
                service.book_answer(claim_of(service), 200)
            except PoolExhausted:
                return count
            count += 1

    assert use_day() == 3
    clocks.set_wall(86_400)
    assert use_day() == 3
    clocks.set_wall(-86_400)
    assert use_day() == 0
    clocks.set_wall(86_400)

    assert use_day() == 0


def test_after_a_reboot_the_last_minute_still_counts_and_no_longer(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two")
    set_limits(secret=ONE, requests_per_minute=2, requests_per_day=1000)
    set_limits(secret=TWO, requests_per_minute=3, requests_per_day=1000)
    assert count_claims(service) == 5
    service.close()

    clocks.elapsed_ns = 7 * 10**9
    with_new_memory = Ledger(django_settings.QUOTA_ZONE)
    assert count_claims(with_new_memory) == 0
    clocks.go_on(A_WINDOW)

    assert count_claims(with_new_memory) == 5
    with_new_memory.close()


def test_a_restart_of_the_service_keeps_the_minute_and_the_day(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    set_limits(requests_per_minute=3, requests_per_day=4)
    claim_of(service)
    claim_of(service)
    service.close()

    restarted = Ledger(django_settings.QUOTA_ZONE)
    assert count_claims(restarted) == 1
    clocks.go_on(A_WINDOW)

    assert count_claims(restarted) == 1
    restarted.close()


def test_two_processes_share_one_window(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two")
    set_limits(requests_per_minute=10, requests_per_day=1000)
    other = Ledger(django_settings.QUOTA_ZONE)

    with ThreadPoolExecutor(16) as executor:
        counting = [executor.submit(count_claims, ledger, at_most=5) for ledger in (service, other) for _ in range(8)]
        total = sum(count.result() for count in counting)
    other.close()

    assert total == 20
    assert uses() == {FLASH: 20}
    assert sorted(Quota.objects.of_models().values_list("minute_requests", "day_requests")) == [(10, 10), (10, 10)]


def test_claims_given_back_leave_no_trace(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    set_limits(requests_per_minute=2, requests_per_day=2)
    for _ in range(5):
        service.give_back(claim_of(service))

    assert count_claims(service) == 2


def test_a_released_claim_makes_room_in_a_full_minute(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    set_limits(requests_per_minute=2, requests_per_day=1000)
    claim_of(service)
    last = claim_of(service)
    assert count_claims(service) == 0

    service.give_back(last)

    assert count_claims(service) == 1


class _LeftError(BaseException):
    """What gevent raises in the greenlet of a client that disconnected."""


def _leave(asked: Any) -> None:
    raise _LeftError


@pytest.mark.parametrize("is_granted", [False, True], ids=["before", "after"])
def test_who_leaves_while_his_claim_is_made_gives_it_back(
    clocks: Clocks, service: Ledger, pool: Pool, monkeypatch: pytest.MonkeyPatch, *, is_granted: bool
) -> None:
    pool("one")
    set_limits(requests_per_minute=2, requests_per_day=2)

    def leave(asked: Any) -> None:
        if is_granted:
            asked._done.wait()
        _leave(asked)

    with monkeypatch.context() as patch:
        patch.setattr("proxy.ledger.entries.PendingClaim.wait", leave)
        for _ in range(5):
            with pytest.raises(_LeftError):
                claim_of(service)

    claim_of(service, PRO)  # comes after all of them

    assert count_claims(service) == 2


def test_who_leaves_while_his_claim_cannot_be_written_gives_nothing_back(
    clocks: Clocks, service: Ledger, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool("one")
    set_limits(requests_per_minute=5, requests_per_day=5)
    claim_of(service)
    grant = Scheduler.grant

    def grant_in_vain(claiming: Scheduler, pending: Any, lease: Any) -> Any:
        """Grant, and let the transaction fail as soon as the request has its claim."""
        results = grant(claiming, pending, lease)
        return _Failing(results)

    def leave(asked: Any) -> None:
        asked._done.wait()
        _leave(asked)

    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "grant", grant_in_vain)
        patch.setattr("proxy.ledger.entries.PendingClaim.wait", leave)
        with pytest.raises(_LeftError):
            claim_of(service)
    service.close()

    assert quota_of().day_requests == 1
    assert uses() == {FLASH: 1}


class _Failing(list[Any]):
    """Results that cannot be read completely: the database fails in the middle of a transaction."""

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        raise OperationalError("disk I/O error")


# Models


def test_a_model_that_google_does_not_know_leaves_no_rows(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    for number in range(3):
        service.book_answer(claim_of(service, f"no-model-{number}"), 404)
    service.book_answer(claim_of(service), 200)
    service.book_answer(claim_of(service), 404)  # it knows that one

    assert list(GeminiModel.objects.values_list("model_name", flat=True)) == [FLASH]
    assert set(Quota.objects.of_models().values_list("model_name", flat=True)) == {FLASH}
    assert uses() == {FLASH: 2}


def test_models_beyond_the_hundredth_share_the_common_rotation(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two")
    GeminiModel.objects.bulk_create(GeminiModel(model_name=f"model-{number}", is_known=True) for number in range(100))

    claims = [claim_of(service, "one-more") for _ in range(4)]

    assert [claim.secret for claim in claims] == [ONE, TWO, ONE, TWO]
    assert GeminiModel.objects.count() == 100
    assert uses() == {}


def test_a_name_for_a_changing_model_shares_the_quota_of_the_one_it_stands_for(
    clocks: Clocks, service: Ledger, pool: Pool
) -> None:
    pool("one")
    refuse(service, claim_of(service, LATEST), refused(Violation(PER_MINUTE, 3), model_name=FLASH))
    clocks.go_on(A_WINDOW)

    for model_name in (LATEST, FLASH, LATEST):
        claim = claim_of(service, model_name)
        service.book_answer(claim, 200)
        assert claim.model_name == model_name
    for model_name in (LATEST, FLASH):
        with pytest.raises(PoolExhausted):
            claim_of(service, model_name)

    assert claim_of(service, PRO)
    assert quota_of().minute_requests == 3
    service.close()
    assert answers_by_secret() == {ONE: 3}


def test_a_limit_reached_under_an_alias_applies_to_the_model_itself(
    clocks: Clocks, service: Ledger, pool: Pool
) -> None:
    pool("one")
    claim_of(service)
    refuse(service, claim_of(service, LATEST), errors.per_day_long(FLASH))

    for model_name in (LATEST, FLASH):
        with pytest.raises(PoolExhausted):
            claim_of(service, model_name)
    assert ExhaustionEvent.objects.get().model_name == FLASH


# Overload


def overload_of(model_name: str = FLASH) -> int:
    return GeminiModel.objects.get(model_name=model_name).overloads


def test_an_overloaded_model_is_left_alone_by_the_whole_pool(
    clocks: Clocks, service: Ledger, pool: Pool, later: Later
) -> None:
    pool("one", "two", "three")
    service.book_answer(claim_of(service), 503)

    waiting = [later(lambda: claim_of(service, wait_seconds=30)) for _ in range(3)]
    assert is_soon(lambda: waiting_in(service) == 3)
    assert claim_of(service, PRO)
    assert not is_soon(lambda: any(asked.done() for asked in waiting), 0.7)
    clocks.go_on(0.3)

    assert {asked.result(5).secret for asked in waiting} == {ONE, TWO, THREE}


def test_pauses_grow_from_wave_to_wave_and_end_with_an_answer(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one")
    pauses = []
    for _ in range(8):
        service.book_answer(claim_of(service), 503)
        began = clocks.elapsed_ns
        until = GeminiModel.objects.get().backs_off_until
        pauses.append((until - began) / 10**9)
        clocks.go_on(pauses[-1] + 0.1)

    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    service.book_answer(claim_of(service), 200)
    assert overload_of() == 0
    _, has_waited = service.claim(claim_request_for(wait_seconds=30))
    assert not has_waited


def test_requests_that_fail_together_are_one_wave(clocks: Clocks, service: Ledger, pool: Pool) -> None:
    pool("one", "two", "three")
    claims = [claim_of(service) for _ in range(3)]

    for claim in claims:
        service.book_answer(claim, 503)

    assert overload_of() == 1


def test_one_request_goes_to_see_whether_a_long_overload_is_over(
    clocks: Clocks, service: Ledger, pool: Pool, later: Later
) -> None:
    pool("one", "two", "three")
    set_limits(**AMPLE)
    for _ in range(3):
        service.book_answer(claim_of(service), 503)
        clocks.go_on(1.1)

    waiting = [later(lambda: claim_of(service, wait_seconds=30)) for _ in range(3)]
    assert is_soon(lambda: sum(asked.done() for asked in waiting) == 1)
    assert not is_soon(lambda: sum(asked.done() for asked in waiting) > 1, 0.7)
    [scout] = [asked.result() for asked in waiting if asked.done()]
    service.book_answer(scout, 200)

    assert is_soon(lambda: all(asked.done() for asked in waiting))


def test_who_waits_only_for_an_overload_is_served_in_order_too(
    clocks: Clocks, service: Ledger, pool: Pool, later: Later
) -> None:
    """As with MAX_WAIT_SECONDS=0: no request waits for a rate-limited key."""
    pool("one")
    set_limits(**AMPLE)
    service.book_answer(claim_of(service), 503)

    def claim() -> Claim:
        now = time.monotonic()
        return service.claim(ClaimRequest(FLASH, 10, gives_up_at=now, deadline=now + 30))[0]

    waiting = []
    for number in range(5):
        waiting.append(later(claim))
        assert is_soon(lambda number=number: waiting_in(service) == number + 1)  # type: ignore[misc]
    clocks.go_on(0.3)

    assert [asked.result(5).in_minute for asked in waiting] == [2, 3, 4, 5, 6]


def test_a_request_with_no_time_for_the_overload_pause_retries_at_once(
    clocks: Clocks, service: Ledger, pool: Pool
) -> None:
    pool("one")
    service.book_answer(claim_of(service), 503)

    claim, has_waited = service.claim(claim_request_for(wait_seconds=0.1))

    assert claim.overloads == 1
    assert not has_waited
