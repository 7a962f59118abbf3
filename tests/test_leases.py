"""Turns that are leased ahead under load: taken without a transaction, never beyond a limit, and given back."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from proxy.gemini.refusals import Refusal, Window
from proxy.ledger import Ledger, leases
from proxy.ledger.claims import Claim, PoolExhausted
from proxy.ledger.history import FinishedRequest
from proxy.models import ApiKey, GeminiModel, LedgerWriter, Quota, Use
from tests.conftest import FLASH, Pool, claim_of, claim_request_for, is_soon, locked_database

pytestmark = pytest.mark.django_db(transaction=True)


class Load:
    """A ledger under load, by a clock that stands still."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.now = 1000.0

    def claims(self, count: int) -> list[Claim]:
        """Claim this many keys in a quarter of a second, and one more in the next, whose transaction leases turns."""
        claims = [claim_of(self.ledger) for _ in range(count)]
        self.now += leases.LIFETIME
        return [*claims, claim_of(self.ledger)]

    @property
    def turns(self) -> int:
        return len(self.ledger._writer._leases)


@pytest.fixture
def load(service: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    load = Load(service)
    monkeypatch.setattr(leases, "BUSY", 1)
    monkeypatch.setattr(leases, "monotonic", lambda: load.now)
    GeminiModel.objects.begin(FLASH)  # a model that has been answered before
    yield load
    load.now += 1  # so that the ledger gives all turns back


def prove(requests: int) -> None:
    """Let Google have accepted this many requests in a minute."""
    Quota.objects.filter(model_name=FLASH).update(most_in_a_minute=requests)


def set_limits(**limits: int) -> None:
    Quota.objects.filter(model_name=FLASH).set_limits(timezone.now(), **limits)


def requests_of_day() -> int:
    return sum(Quota.objects.filter(model_name=FLASH).values_list("day_requests", flat=True))


def requests_of_minute() -> int:
    return sum(Use.objects.values_list("requests", flat=True))


def test_a_turn_is_taken_while_the_database_is_locked(load: Load, pool: Pool) -> None:
    pool("one", "two")
    prove(100)
    used = len(load.claims(5))
    assert load.turns == 5
    assert requests_of_day() == used + 5

    with locked_database():
        claims = [claim_of(load.ledger) for _ in range(5)]

    assert load.turns == 0
    assert {claim.key_id for claim in claims} == set(ApiKey.objects.values_list("id", flat=True))
    load.ledger.book_answer(claims[0], 200)
    load.ledger.close()
    assert requests_of_day() == requests_of_minute() == used + 5


def test_turns_that_nobody_takes_return(load: Load, pool: Pool) -> None:
    pool("one")
    prove(100)
    used = len(load.claims(5))
    claim_of(load.ledger)
    load.now += 2 * leases.LIFETIME  # the demand is over, too

    assert is_soon(lambda: requests_of_day() == used + 1)
    assert requests_of_minute() == used + 1
    assert load.turns == 0
    assert is_soon(lambda: not LedgerWriter.objects.get().has_turns)


def test_turns_return_when_the_ledger_closes(load: Load, pool: Pool) -> None:
    pool("one")
    prove(100)
    used = len(load.claims(5))

    load.ledger.close()

    assert requests_of_day() == requests_of_minute() == used


def test_light_traffic_leases_nothing(load: Load, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BUSY", 6)
    pool("one")
    prove(100)
    load.claims(5)
    assert load.turns == 0


def test_an_unknown_limit_is_leased_as_far_as_it_is_proven(load: Load, pool: Pool) -> None:
    pool("one")
    prove(8)
    load.claims(6)
    assert load.turns == 1  # the eighth


@pytest.mark.parametrize("limit", ["requests_per_minute", "requests_per_day"])
def test_only_the_first_half_of_a_limit_is_leased(load: Load, pool: Pool, limit: str) -> None:
    pool("one")
    prove(100)
    set_limits(**{limit: 20})
    load.claims(8)
    assert load.turns == 1  # the tenth

    for _ in range(11):
        claim_of(load.ledger)
    with pytest.raises(PoolExhausted):
        claim_of(load.ledger)


def test_a_limit_of_tokens_is_leased_by_half_too(load: Load, pool: Pool) -> None:
    pool("one")
    prove(100)
    set_limits(input_tokens_per_minute=120)
    load.claims(4)
    assert load.turns == 1
    assert [quota.minute_tokens for quota in Quota.objects.filter(model_name=FLASH)] == [60]


def test_a_turn_does_not_serve_a_larger_request_or_a_key_that_was_tried(load: Load, pool: Pool) -> None:
    [one] = pool("one")
    prove(100)
    load.claims(3)

    with locked_database() as let_go:
        assert load.ledger._writer.take_turn(claim_request_for(tokens=11)) is None
        assert load.ledger._writer.take_turn(claim_request_for(tried=[one.id])) is None
        assert claim_of(load.ledger).tokens == 10
        let_go()


def test_models_that_nobody_uses_are_forgotten() -> None:
    held = leases.Leases()
    for number in range(1000):
        held.take(claim_request_for(f"model-{number}"))
    assert len(held._stocks) <= 100


def test_a_refusal_returns_the_turns_of_its_project(load: Load, pool: Pool) -> None:
    pool("one", project="first")
    pool("two", project="second")
    prove(100)
    claims = load.claims(6)
    refused = claims[0]

    load.ledger.book_refusal(refused, Refusal(Window.DAY))
    rest = [claim_of(load.ledger) for _ in range(6)]

    assert {claim.key_id for claim in rest} == {claim.key_id for claim in claims} - {refused.key_id}


def test_an_overload_returns_the_turns_of_its_model(load: Load, pool: Pool) -> None:
    pool("one")
    prove(100)
    [claim, *_] = load.claims(6)

    load.ledger.book_answer(claim, 503)

    assert load.turns == 0


def test_what_a_dead_process_has_leased_is_counted_again(load: Load, pool: Pool) -> None:
    pool("one")
    claim = claim_of(load.ledger)
    load.ledger.book_answer(claim, 200)
    Quota.objects.filter(model_name=FLASH).update(day_requests=50)
    load.ledger._transaction._prunes_at = 0
    for number, seconds in ((1, 9), (2, 3600)):
        committed_at = timezone.now() - timedelta(seconds=seconds)
        LedgerWriter.objects.create(id=number, batch=1, committed_at=committed_at, has_turns=True)

    finished = FinishedRequest(datetime.now(UTC), "id", "POST", "a", FLASH, [(claim.key_id, 200)], 200, 0, 1, 1)
    load.ledger.record(finished)
    load.ledger.close()
    claim_of(load.ledger)

    assert requests_of_day() == 2
    assert list(LedgerWriter.objects.filter(has_turns=True).values_list("id", flat=True)) == [1]
