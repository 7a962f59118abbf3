"""The ledger: claims and bookings with many threads, a locked database, and entries that cannot be written."""

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from threading import Barrier, Event, Thread, Timer
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.gemini.refusals import Fault, Refusal, Window
from proxy.gemini.tokens import Tokens
from proxy.ledger import Ledger, LedgerUnavailable
from proxy.ledger.claims import Claim, PoolExhausted
from proxy.ledger.clock import SECOND, DatabaseClock
from proxy.ledger.entries import Booking
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, KeyState
from tests.conftest import (
    FLASH,
    STREAM,
    Pool,
    RawUpstream,
    ReplaceUpstream,
    answers_by_secret,
    ask,
    claim_of,
    error_in,
    fake_secret,
    is_soon,
    locked_database,
    other_connection,
    usage_of_today,
)
from tests.fake_gemini import FakeGemini

ONE, TWO = fake_secret("one"), fake_secret("two")
FOLLOW = DatabaseClock.follow  # other tests do without it


def claims_of(ledger: Ledger, count: int, model_name: str = FLASH) -> list[Claim]:
    """Claim this many keys in turn, like a request that fails over each time."""
    claims: list[Claim] = []
    for _ in range(count):
        claims.append(claim_of(ledger, model_name, tried=[claim.key_id for claim in claims]))
    return claims


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return future


def answers_on_disk() -> int:
    """Return rows as another process would see them."""
    with closing(other_connection()) as other:
        return int(other.execute("SELECT coalesce(sum(answers), 0) FROM proxy_dailyusage").fetchone()[0])


# Claims


def test_claims_go_from_the_least_recently_used_key_on_and_name_none_twice(service: Ledger, pool: Pool) -> None:
    pool("one", "two", "three")
    claim_of(service)

    claims = claims_of(service, 3)

    assert [claim.secret for claim in claims] == [fake_secret(name) for name in ("two", "three", "one")]
    with pytest.raises(PoolExhausted) as exhausted:
        claims_of(service, 4)
    assert exhausted.value.has_keys


def test_claims_at_once_share_no_key_while_there_are_enough(service: Ledger, pool: Pool) -> None:
    pool(*[f"key-{number}" for number in range(16)])
    threads = Barrier(16)

    def take() -> str:
        threads.wait()
        return claim_of(service).secret

    with ThreadPoolExecutor(16) as executor:
        secrets = [future.result() for future in [executor.submit(take) for _ in range(16)]]

    assert len(set(secrets)) == 16


def test_claims_that_wait_together_are_all_served(service: Ledger, pool: Pool) -> None:
    pool("one", "two", "three")

    with locked_database() as let_go, ThreadPoolExecutor(40) as executor:
        futures = [executor.submit(claim_of, service) for _ in range(40)]
        let_go()
        counts = Counter(future.result().secret for future in futures)

    assert sorted(counts.values()) == [13, 13, 14]


refusal_windows = st.sampled_from([Window.DAY, Window.MINUTE, Window.NONE, Window.UNKNOWN, None])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(refusal_windows, min_size=1, max_size=6), min_size=1, max_size=5))
def test_whatever_is_refused_claims_offer_no_exhausted_key_and_none_twice(
    service: Ledger, pool: Pool, rounds: list[list[Window | None]]
) -> None:
    pool("one", "two", "three", "four")  # known after the first example
    model_name, limited = f"model-{uuid4()}", set()

    for outcomes in rounds:
        offered: list[int] = []
        try:
            for window in outcomes:
                claim = claim_of(service, model_name, tried=offered)
                offered.append(claim.key_id)
                assert claim.key_id not in limited
                if window is None:
                    service.book_answer(claim, 200)
                    break
                service.book_refusal(claim, Refusal(window))
                limited.add(claim.key_id)
        except PoolExhausted:
            assert len(limited) == 4
        assert len(set(offered)) == len(offered)


def test_ten_cooldowns_that_end_bring_ten_keys_back(service: Ledger, pool: Pool) -> None:
    keys = pool(*[f"key-{number}" for number in range(10)])
    for claim in claims_of(service, 10):
        service.book_refusal(claim, Refusal(Window.MINUTE, 30))
    with pytest.raises(PoolExhausted):
        claim_of(service)

    with time_machine.travel(timezone.now() + timedelta(seconds=31), tick=True):
        secrets = [claim_of(service).secret for _ in range(10)]

    assert secrets == [key.secret for key in keys]


# Bookings


def test_counts_are_exact_with_16_threads(service: Ledger, pool: Pool) -> None:
    pool("one", "two", "three", "four", "five")
    threads = Barrier(16)
    booked: Counter[str] = Counter()

    def work() -> list[str]:
        threads.wait()
        claims = [claim_of(service, f"model-{number % 3}") for number in range(25)]
        for claim in claims:
            service.book_answer(claim, 200)
            service.book_tokens(claim, Tokens(prompt=3, output=2, thinking=1))
        return [claim.secret for claim in claims]

    with ThreadPoolExecutor(16) as executor:
        for future in [executor.submit(work) for _ in range(16)]:
            booked.update(future.result())

    assert answers_by_secret() == booked
    assert booked.total() == 400
    assert usage_of_today() == {
        "answers": 400,
        "prompt_tokens": 1200,
        "output_tokens": 800,
        "thinking_tokens": 400,
    }
    assert DailyUsage.objects.count() == 15


def test_an_answer_is_on_disk_once_it_is_booked(service: Ledger, pool: Pool) -> None:
    pool("one")
    claim = claim_of(service)

    service.book_answer(claim, 200)

    assert answers_on_disk() == 1


def test_entries_that_nothing_waits_for_are_written_at_the_end(service: Ledger, pool: Pool) -> None:
    pool("one", "two")
    first, second = claims_of(service, 2)

    with locked_database() as let_go:
        service.book_refusal(first, Refusal(Window.DAY))
        service.book_fault(second, Fault.LEAKED, "leaked")
        service.book_tokens(first, Tokens(prompt=5))
        let_go()
        service.close()

    assert usage_of_today() == {"answers": 1, "errors": 1, "refusals": 1, "prompt_tokens": 5}
    assert ExhaustionEvent.objects.count() == 1
    assert ApiKey.objects.bad().count() == 1


def test_a_closed_ledger_opens_again_with_the_next_claim(service: Ledger, pool: Pool) -> None:
    pool("one")

    for _ in range(3):
        service.book_answer(claim_of(service), 200)
        service.close()
        service.close()

    assert answers_by_secret() == {ONE: 3}


def test_an_answer_on_the_last_second_of_a_day_is_booked_on_it(service: Ledger, pool: Pool) -> None:
    pool("one")
    for moment in ("2026-11-24T07:59:59.9+00:00", "2026-11-24T08:00:00+00:00"):
        with time_machine.travel(moment, tick=False):
            service.book_answer(claim_of(service), 200)

    days = DailyUsage.objects.order_by("day").values_list("day", "answers")

    assert [(str(day), answers) for day, answers in days] == [("2026-11-23", 1), ("2026-11-24", 1)]


# A database that is locked by another process


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_locked_database_only_delays(client: Client, gemini: FakeGemini, pool: Pool, mode: str) -> None:
    pool("one")
    with locked_database(mode) as let_go:
        timer = Timer(1.0, let_go)
        timer.start()

        response = ask(client)

        timer.join()
    assert response.status_code == 200
    assert answers_by_secret() == {ONE: 1}


def test_a_running_stream_does_not_wait_for_a_locked_database(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.hold = Event()
    response = client.post(STREAM, "{}", content_type="application/json")

    with locked_database():
        gemini.hold.set()
        content = response.getvalue()

    assert content.count(b"\r\n\r\n") == 3
    assert usage_of_today()["answers"] == 1


def test_a_database_that_stays_locked_is_a_503_and_nothing_is_sent(
    client: Client, gemini: FakeGemini, pool: Pool, impatient: Ledger
) -> None:
    pool("one")
    with locked_database():
        response = ask(client)

    assert response.status_code == 503
    assert error_in(response)["status"] == "UNAVAILABLE"
    assert "database" in error_in(response)["message"]
    assert not gemini.seen
    assert ask(client).status_code == 200


def test_a_booking_that_a_locked_database_did_not_take_is_a_503_and_written_with_the_next(
    gemini: FakeGemini, pool: Pool, impatient: Ledger
) -> None:
    pool("one", "two")
    first, second = claims_of(impatient, 2)

    with locked_database(), pytest.raises(LedgerUnavailable):
        impatient.book_answer(first, 200)
    with locked_database():
        impatient.book_refusal(second, Refusal(Window.DAY))
        with pytest.raises(LedgerUnavailable):
            claim_of(impatient)
    claim = claim_of(impatient)

    assert claim.secret == ONE  # the second is rate-limited
    assert usage_of_today() == {"answers": 1, "refusals": 1}


def test_an_answer_whose_booking_failed_is_not_sent(
    client: Client, raw: RawUpstream, pool: Pool, impatient: Ledger, replace_upstream: ReplaceUpstream
) -> None:
    pool("one")
    replace_upstream(raw.url)
    raw.script(b"HTTP/1.1 200", b" OK\r\nContent-Length: 2\r\n\r\n{}")
    asking = in_thread(lambda: ask(client))
    assert is_soon(lambda: raw.requests)

    with locked_database():
        raw.go_on()
        response = asking.result()

    assert response.status_code == 503
    assert answers_by_secret() == {ONE: 1}


def test_bookings_that_could_not_be_written_are_written_without_a_further_request(
    pool: Pool, impatient: Ledger
) -> None:
    pool("one")
    claim = claim_of(impatient)

    with locked_database(), pytest.raises(LedgerUnavailable):
        impatient.book_answer(claim, 200)

    assert is_soon(lambda: answers_on_disk() == 1)


def test_bookings_that_could_not_be_written_are_written_when_the_ledger_closes(pool: Pool, impatient: Ledger) -> None:
    pool("one")
    claim = claim_of(impatient)
    with locked_database():
        for _ in range(3):
            with pytest.raises(LedgerUnavailable):
                impatient.book_answer(claim, 200)

    impatient.close()

    assert answers_on_disk() == 3


# Entries that cannot be written


@pytest.mark.sqlite
def test_an_entry_that_cannot_be_written_harms_no_other(
    service: Ledger, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    [gone, _] = pool("one", "two")
    poison, good = claims_of(service, 2)
    ApiKey.objects.filter(pk=gone.pk).delete()  # no row to refer to: not what `forget` does

    with locked_database() as let_go:
        service._writer.put(Booking(good, timezone.now(), prompt_tokens=1))
        assert is_soon(service._writer._queue.empty)  # the writer waits with it; what comes now is one batch
        bookings = [in_thread(partial(service.book_answer, claim, 200)) for claim in (good, poison, good)]
        late = in_thread(lambda: claim_of(service))
        assert is_soon(lambda: service._writer._queue.qsize() == 4)
        let_go()
        errors = [booking.exception() for booking in bookings]

    assert [type(error) for error in errors] == [type(None), LedgerUnavailable, type(None)]
    assert late.result().secret == TWO
    assert answers_by_secret() == {TWO: 2}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_nothing_is_lost_when_the_database_locks_while_a_bad_entry_is_sorted_out(
    service: Ledger, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool("one", "two", "three")
    attempts: Counter[str] = Counter()

    def write(cursor: object, *, claim: Claim, **rest: object) -> None:
        """Fail permanently for the first key, and once for the others, as if another process had taken the lock."""
        attempts[claim.secret] += 1
        if claim.secret == ONE:
            raise ValueError("cannot be written")
        if attempts[claim.secret] == 1:
            raise OperationalError("database is locked")

    monkeypatch.setattr("proxy.ledger.api.write_refusal", write)
    taken = claims_of(service, 3)

    with locked_database():
        service._writer.put(Booking(taken[1], timezone.now(), prompt_tokens=1))
        assert is_soon(service._writer._queue.empty)  # the writer waits with it; what comes now is one batch
        for claim in taken:
            service.book_refusal(claim, Refusal(Window.DAY))
    claim_of(service, "another")

    assert usage_of_today() == {"prompt_tokens": 1, "refusals": 2}


# Keys that go while a request is under way


@pytest.mark.parametrize("change", ["forget", "disable"])
@pytest.mark.parametrize("outcome", ["answer", "refusal", "fault", "tokens"])
def test_usage_is_booked_even_if_the_key_was_deleted_meanwhile(
    service: Ledger, pool: Pool, change: str, outcome: str
) -> None:
    [key] = pool("one")
    claim = claim_of(service)

    getattr(ApiKey.objects.all(), change)(timezone.now())
    match outcome:
        case "answer":
            service.book_answer(claim, 200)
        case "refusal":
            service.book_refusal(claim, Refusal(Window.DAY))
        case "fault":
            service.book_fault(claim, Fault.LEAKED, "leaked")
        case _:
            service.book_tokens(claim, Tokens(prompt=1))

    counted = {"answer": "answers", "refusal": "refusals", "fault": "errors", "tokens": "prompt_tokens"}[outcome]
    assert usage_of_today()[counted] == 1
    key.refresh_from_db()
    assert key.state is not KeyState.USABLE
    assert (key.state is KeyState.DELETED) == (change == "forget")
    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)
    assert not exhausted.value.has_keys


def test_a_deleted_key_added_again_starts_with_a_clean_slate(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.exhaust(ONE, model=FLASH)
    ask(client)
    ApiKey.objects.all().forget(timezone.now())
    gemini.reset()

    pool("one")
    response = ask(client)

    assert response.status_code == 200
    assert ApiKey.objects.count() == 2


def test_claims_go_on_while_keys_are_imported(service: Ledger, pool: Pool) -> None:
    pool("one")
    done = Event()

    def work() -> int:
        count = 0
        while not done.is_set():
            service.book_answer(claim_of(service), 200)
            count += 1
        return count

    working = in_thread(work)
    importing = Thread(target=_import_keys)
    importing.start()
    importing.join()
    done.set()

    booked = working.result()
    assert sum(answers_by_secret().values()) == booked > 0
    assert ApiKey.objects.count() == 1001


def _import_keys() -> None:
    from django.db import connections  # noqa: PLC0415  # a thread of its own has connections of its own

    from proxy.pool.adding import add_keys  # noqa: PLC0415

    add_keys([fake_secret(f"import-{number}") for number in range(1000)], timezone.now())
    connections.close_all()


# The clock of a server


def test_a_clock_that_is_read_late_is_believed_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed = [1000 * SECOND]
    monkeypatch.setattr("proxy.ledger.clock.elapsed_ns", lambda: elapsed[0])
    monkeypatch.setattr(DatabaseClock, "follow", FOLLOW)
    clock = DatabaseClock()
    server = 1_796_000_000 * SECOND

    clock.follow(server)
    assert clock.was_set()
    elapsed[0] += 5 * SECOND
    clock.follow(server + SECOND)  # the process has slept for four seconds before it read the result
    assert not clock.was_set()
    assert clock.now_ns() == server + 5 * SECOND

    clock.follow(server + SECOND)  # the server's clock was set back
    assert clock.was_set()
    assert clock.now_ns() == server + SECOND
