"""Logins: too many failures lead to a wait, typed text is not stored, and hashing does not block streams."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from axes.models import AccessAttempt, AccessLog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from proxy.accounts import logins
from tests.conftest import fake_secret

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery staple"
LIMIT = settings.AXES_FAILURE_LIMIT


@pytest.fixture(autouse=True)
def admin(db: None, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.setattr("proxy.accounts.password_hasher.ThreadedHasher.iterations", 1)
    return User.objects.create_superuser("admin", password=PASSWORD)


@pytest.fixture
def travel() -> Iterator[Any]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def log_in(password: str = PASSWORD, name: str = "admin", address: str = "203.0.113.7", **meta: Any) -> Any:
    form = {"username": name, "password": password, "next": "/dashboard/"}
    return Client(REMOTE_ADDR=address, **meta).post("/admin/login/", form)


def fail(times: int = LIMIT, **kwargs: Any) -> Any:
    return [log_in("wrong", **kwargs) for _ in range(times)][-1]


def test_a_correct_password_lets_in() -> None:
    response = log_in()

    assert (response.status_code, response.headers["Location"]) == (302, "/dashboard/")


def test_after_some_failures_an_account_waits_also_with_the_right_password(travel: Any) -> None:
    assert fail(LIMIT - 1).status_code == 200

    last, right = fail(1), log_in()

    for response in (last, right):
        assert response.status_code == 429
        assert "Too many failed logins. Try again in 5 minutes." in response.content.decode()
        assert response.headers["Retry-After"] == "300"
        assert response.headers["Cache-Control"] == "no-store"
    travel.shift(timedelta(minutes=4, seconds=30))
    assert "Try again in 1 minute." in log_in().content.decode()
    travel.shift(timedelta(seconds=31))
    assert log_in().status_code == 302


def test_trying_on_does_not_prolong_the_wait(travel: Any) -> None:
    fail()
    travel.shift(timedelta(minutes=3))
    fail()
    travel.shift(timedelta(minutes=2, seconds=1))

    assert log_in().status_code == 302


def test_a_stranger_does_not_lock_the_account_for_its_owner() -> None:
    fail()

    assert log_in(address="198.51.100.1").status_code == 302
    assert log_in().status_code == 429


def test_an_address_is_limited_over_all_accounts() -> None:
    for number in range(logins.FAILURES_OF_ADDRESS):
        assert log_in("wrong", name=f"account-{number // 4}").status_code == (429 if number == 19 else 200)

    assert log_in().status_code == 429
    assert log_in(address="198.51.100.1").status_code == 302


def test_a_login_forgives_its_own_account_alone() -> None:
    User.objects.create_superuser("guesser", password=PASSWORD)
    fail(LIMIT - 1)
    log_in(name="guesser")

    assert fail(1).status_code == 429


def test_a_login_forgives_failures_before_it() -> None:
    fail(LIMIT - 1)
    log_in()

    assert fail(LIMIT - 1).status_code == 200


def test_the_forwarded_address_counts_when_a_trusted_proxy_tells_it() -> None:
    fail(address="127.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.7")

    assert log_in(address="127.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.7").status_code == 429
    assert log_in(address="127.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.8").status_code == 302


def test_no_header_of_a_strangers_moves_the_address() -> None:
    for number in range(LIMIT):
        log_in("wrong", HTTP_X_FORWARDED_FOR=f"192.0.2.{number}", HTTP_USER_AGENT=f"agent {number}")

    assert log_in(HTTP_X_FORWARDED_FOR="192.0.2.99").status_code == 429


def test_a_network_of_ipv6_is_one_address() -> None:
    for number in range(LIMIT):
        log_in("wrong", address=f"2001:db8:1:2::{number}")

    assert log_in(address="2001:db8:1:2:ffff::1").status_code == 429
    assert log_in(address="2001:db8:1:3::1").status_code == 302


def test_a_unix_socket_has_no_address_and_is_limited_as_well() -> None:
    fail(address="")

    assert log_in(address="").status_code == 429


def test_nothing_that_was_typed_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    typed = ["hunter2-in-the-wrong-place", fake_secret("typed"), "two\nlines"]

    with caplog.at_level(logging.DEBUG):
        for text in typed:
            log_in(text)
            log_in("wrong-password", name=text)
        fail()
        log_in()

    tables = [model._meta.db_table for model in (AccessAttempt, AccessLog)]
    with connection.cursor() as cursor:
        kept = str([cursor.execute(f"SELECT * FROM {table}").fetchall() for table in tables])
    for text in [*typed, "wrong-password", PASSWORD]:
        assert text not in kept + caplog.text
    assert not AccessLog.objects.exists()


def test_a_failure_is_logged_with_account_and_address(caplog: pytest.LogCaptureFixture) -> None:
    fail(LIMIT + 1)
    log_in("wrong", name="nobody")

    messages = [record.getMessage() for record in caplog.records if record.name == "proxy.accounts.logins"]
    assert messages[:LIMIT] == ["A login as admin from 203.0.113.7 failed."] * LIMIT
    assert messages[LIMIT:] == [
        "Logins as admin from 203.0.113.7 are refused for 5 minutes.",
        "A login as an unknown account from 203.0.113.7 failed.",
    ]


def test_a_name_is_one_short_masked_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    name, shown = f"a\x85b {fake_secret('name')}" + " x" * 50, ("ab …name" + " x" * 50)[:50]
    User.objects.create_user(name)

    log_in("wrong", name=name)

    [messages] = [record.getMessage() for record in caplog.records if record.name == "proxy.accounts.logins"]
    assert messages == f"A login as {shown} from 203.0.113.7 failed."


def test_rows_go_when_they_count_no_more(travel: Any) -> None:
    for number in range(10):
        log_in("wrong", address=f"203.0.113.{number}")
    travel.shift(settings.AXES_COOLOFF_TIME)

    log_in("wrong")

    assert AccessAttempt.objects.count() == 1


def test_too_many_logins_at_once_are_told_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(logins.AT_ONCE):
        logins._places.acquire()
    try:
        response = log_in()
    finally:
        for _ in range(logins.AT_ONCE):
            logins._places.release()

    assert response.status_code == 429
    assert "Too many logins at once." in response.content.decode()
    assert not AccessAttempt.objects.exists()
    assert not [record for record in caplog.records if record.name == "proxy.accounts.logins"]
    assert log_in().status_code == 302


def test_without_a_request_nobody_is_throttled() -> None:
    fail()

    assert Client().login(username="admin", password=PASSWORD)


def test_under_gevent_everything_else_goes_on_while_one_password_is_hashed() -> None:
    script = """
from gevent import monkey; monkey.patch_all()
import gevent, hashlib
import django; django.setup()
from django.contrib.auth import hashers
from gevent.monkey import get_original

released, hashing = get_original("threading", "Event")(), []

def slow(*args, **kwargs):
    hashing.append(1)
    assert len(hashing) == 1, "two at once"
    assert released.wait(30), "the greenlets stand still"
    hashing.pop()
    return b"hash"

hashers.pbkdf2 = slow
logins = [gevent.spawn(hashers.make_password, "password") for _ in range(5)]
gevent.spawn(lambda: [gevent.sleep(0.001) for _ in range(20)]).join()
assert hashing and not any(login.ready() for login in logins)
released.set()
assert len({login.get() for login in logins}) == 5
print("gone on")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.strip() == "gone on", done.stderr
