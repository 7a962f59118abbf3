"""Bad keys are checked now and then, and those that work again become usable."""

import time
from datetime import datetime, timedelta

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from proxy.gemini.refusals import Fault
from proxy.ledger import Ledger
from proxy.models import ApiKey, KeyState
from proxy.pool.key_check import BadKeysWatch, recheck_bad_keys
from tests import gemini_errors as errors
from tests.conftest import Pool, ask, claim_of, fake_secret, is_soon, locked_database
from tests.fake_gemini import FakeGemini
from tests.fake_gemini import Fault as Trouble

ONE, TWO = fake_secret("one"), fake_secret("two")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def asks_the_fake(settings: Settings, gemini: FakeGemini) -> None:
    settings.UPSTREAM_URL = gemini.url


def go_bad(*secrets: str, since: timedelta) -> datetime:
    """Let keys have been bad for this long. Return since when."""
    moment = timezone.now() - since
    ApiKey.objects.filter(secret__in=secrets).mark_bad(Fault.SUSPENDED, "suspended", moment)
    return moment


def one() -> ApiKey:
    return ApiKey.objects.get(secret=ONE)


def test_a_bad_key_that_works_again_becomes_usable(gemini: FakeGemini, pool: Pool, service: Ledger) -> None:
    pool("one")
    go_bad(ONE, since=11 * MINUTE)

    recheck_bad_keys()

    assert [(seen.method, seen.path, seen.secret) for seen in gemini.seen] == [
        ("GET", "/v1beta/models?pageSize=1", ONE)
    ]
    key = one()
    assert (key.state, key.fault_reason, key.fault_since, key.next_check) == (KeyState.USABLE, "", None, None)
    assert claim_of(service).secret == ONE


def test_a_key_that_went_bad_in_the_relay_becomes_usable_again(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    gemini.script(ONE, errors.suspended(ONE))
    assert ask(client).status_code == 503

    with time_machine.travel(timezone.now() + 11 * MINUTE, tick=True):
        recheck_bad_keys()

    assert ask(client).status_code == 200


@pytest.mark.parametrize("trouble", [errors.suspended(ONE), errors.internal(), errors.html_429(), Trouble.RESET_BEFORE])
def test_a_key_that_is_still_bad_or_gets_no_answer_stays_bad_and_is_checked_later(
    gemini: FakeGemini, pool: Pool, trouble: object
) -> None:
    pool("one")
    since = go_bad(ONE, since=11 * MINUTE)
    gemini.script(ONE, trouble)  # type: ignore[arg-type]

    recheck_bad_keys()
    recheck_bad_keys()

    assert len(gemini.seen) == 1
    key = one()
    assert (key.fault, key.fault_reason, key.fault_since) == (Fault.SUSPENDED, "suspended", since)
    assert key.next_check is not None
    assert key.next_check > timezone.now() + 10 * MINUTE


def test_the_pauses_double_up_to_a_day(gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    since = go_bad(ONE, since=timedelta(0))
    gemini.script(ONE, *[errors.suspended(ONE)] * 12)

    ages = []
    for _ in range(12):
        next_check = one().next_check
        assert next_check is not None
        ages.append(next_check - since)
        with time_machine.travel(next_check, tick=False):
            recheck_bad_keys()

    assert len(gemini.seen) == 12
    pauses = [later - earlier for earlier, later in zip([timedelta(0), *ages], ages, strict=False)]
    assert pauses == [10 * MINUTE, *(10 * MINUTE * 2**n for n in range(8)), DAY, DAY, DAY]


@pytest.mark.parametrize("state", ["fresh", "good", "deleted"])
def test_no_other_key_is_checked(gemini: FakeGemini, pool: Pool, state: str) -> None:
    pool("one")
    if state != "good":
        go_bad(ONE, since=HOUR if state == "deleted" else 9 * MINUTE)
    if state == "deleted":
        ApiKey.objects.all().forget(timezone.now())

    recheck_bad_keys()

    assert not gemini.seen


def test_a_key_that_a_person_disabled_stays_disabled(gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    go_bad(ONE, since=HOUR)
    ApiKey.objects.all().disable(timezone.now())

    recheck_bad_keys()

    assert one().fault == ""
    assert one().state is KeyState.DISABLED


def test_an_exhausted_quota_is_not_a_fault(gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    go_bad(ONE, since=HOUR)
    gemini.script(ONE, errors.per_day_long())

    recheck_bad_keys()

    assert one().state is KeyState.USABLE


def test_each_of_many_keys_is_checked_by_one_process(gemini: FakeGemini, pool: Pool) -> None:
    names = [f"key-{number}" for number in range(120)]
    pool(*names)
    go_bad(*map(fake_secret, names), since=HOUR)

    taken = [ApiKey.objects.take_due_checks(timezone.now()) for _ in range(3)]

    assert [len(keys) for keys in taken] == [100, 20, 0]
    assert len({key.pk for keys in taken for key in keys}) == 120


def test_a_database_that_does_not_answer_is_reported_in_one_line(
    gemini: FakeGemini, pool: Pool, impatient: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    pool("one")
    go_bad(ONE, since=HOUR)
    connection.close()  # the next one has the short patience
    with locked_database():
        recheck_bad_keys()

    [record] = caplog.records
    assert "could not be checked" in record.getMessage()
    assert ONE not in caplog.text


def test_the_watch_looks_once_a_minute(gemini: FakeGemini, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    monkeypatch.setattr("proxy.pool.key_check.recheck_bad_keys", lambda: looks.append(time.monotonic()))
    watch = BadKeysWatch()

    for _ in range(5):
        watch.look()
    assert is_soon(lambda: looks)
    watch.next_look -= 60
    watch.look()

    assert is_soon(lambda: len(looks) == 2)
    assert not is_soon(lambda: len(looks) > 2, 0.1)


def test_requests_make_the_watch_look(
    client: Client, gemini: FakeGemini, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool("one", "two")
    go_bad(ONE, since=HOUR)
    monkeypatch.setattr("proxy.views.bad_keys_watch", BadKeysWatch())

    assert ask(client).status_code == 200

    assert is_soon(lambda: one().state is KeyState.USABLE)
