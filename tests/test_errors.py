"""Our own errors: Gemini's format, the right status, and a helpful message."""

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from proxy.client.errors import RequestRefused, error_response
from proxy.error_responses import in_words, response_for
from proxy.journey import DeadlineExceeded
from proxy.ledger import LedgerUnavailable
from proxy.ledger.claims import Overloaded, PoolExhausted
from proxy.upstream.exchange import AnswerLost, UpstreamUnreachable

NOW = datetime(2026, 11, 23, 20, 0, 0, tzinfo=UTC)


def error_of(response: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(response.content)
    assert list(content) == ["error"]
    return dict(content["error"])


def exhausted(seconds: float | None, *, has_keys: bool = True) -> PoolExhausted:
    opens_at = None if seconds is None else NOW + timedelta(seconds=seconds)
    return PoolExhausted("gemini-2.5-flash", opens_at, has_keys=has_keys)


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (RequestRefused(401, "UNAUTHENTICATED", "Show the token."), 401, "UNAUTHENTICATED"),
        (exhausted(30), 503, "UNAVAILABLE"),
        (exhausted(None), 503, "UNAVAILABLE"),
        (exhausted(None, has_keys=False), 503, "UNAVAILABLE"),
        (Overloaded("gemini-2.5-flash", NOW + timedelta(seconds=4)), 503, "UNAVAILABLE"),
        (UpstreamUnreachable("NewConnectionError"), 502, "UNAVAILABLE"),
        (AnswerLost("No answer in time.", is_timeout=True), 504, "DEADLINE_EXCEEDED"),
        (AnswerLost("Connection closed.", is_timeout=False), 502, "UNAVAILABLE"),
        (DeadlineExceeded("gemini-2.5-flash"), 504, "DEADLINE_EXCEEDED"),
        (LedgerUnavailable("The database is locked."), 503, "UNAVAILABLE"),
        (ZeroDivisionError("division by zero"), 500, "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_failure_has_geminis_shape(exc: Exception, status: int, code: str) -> None:
    response = response_for(exc, NOW)

    error = error_of(response)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert (error["code"], error["status"]) == (status, code)
    assert error["message"].endswith((".", ")"))
    assert isinstance(error["details"], list)


def test_what_nobody_foresaw_is_told_to_the_log_and_not_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    response = response_for(KeyError("something inside"), NOW)

    assert b"something inside" not in response.content
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "something inside" in caplog.text


def test_what_a_client_did_wrong_is_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    response_for(RequestRefused(413, "INVALID_ARGUMENT", "Too large."), NOW)
    response_for(exhausted(30), NOW)

    assert caplog.records == []


@pytest.mark.parametrize(
    ("seconds", "retry_after", "words", "is_long"),
    [
        (0.2, 1, "1 second", False),
        (-5, 1, "1 second", False),
        (25.1, 26, "26 seconds", False),
        (120, 120, "2 minutes", False),
        (121, 121, "2 minutes 1 second", True),
        (70469.8, 70470, "19 hours 34 minutes", True),
    ],
)
def test_a_pool_at_rest_tells_when_to_come_back(seconds: float, retry_after: int, words: str, is_long: bool) -> None:
    response = response_for(exhausted(seconds), NOW)

    error = error_of(response)
    assert response.headers["Retry-After"] == str(retry_after)
    assert error["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after}s"},
    ]
    assert f"in {words}, at " in error["message"]
    assert ("x-should-retry" in response.headers) == is_long
    assert response.headers.get("x-should-retry", "false") == "false"


def test_an_overload_is_not_blamed_on_the_keys() -> None:
    response = response_for(Overloaded("gemini-2.5-flash", NOW + timedelta(seconds=3.2)), NOW)

    error = error_of(response)
    assert response.headers["Retry-After"] == "4"
    assert error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "4s"}]
    assert error["message"] == "The Gemini API is overloaded for gemini-2.5-flash. Try again in 4 seconds."


def test_the_moment_of_opening_is_told_in_utc() -> None:
    response = response_for(exhausted(3600), NOW)

    assert "at 2026-11-23 21:00:00 UTC" in error_of(response)["message"]


@pytest.mark.parametrize("seconds", [30, None])
def test_a_pool_at_rest_may_be_a_429_and_an_empty_one_never_is(settings: Settings, seconds: float | None) -> None:
    settings.EXHAUSTED_STATUS = 429

    at_rest, empty = response_for(exhausted(seconds), NOW), response_for(exhausted(None, has_keys=False), NOW)

    assert (at_rest.status_code, error_of(at_rest)["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert (empty.status_code, error_of(empty)["status"]) == (503, "UNAVAILABLE")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (125, "2 minutes 5 seconds"),
        (3600, "1 hour"),
        (3601, "1 hour"),
        (12_000, "3 hours 20 minutes"),
        (90_000, "25 hours"),
        (0, "a moment"),
    ],
)
def test_a_duration_is_told_as_people_say_it(seconds: int, words: str) -> None:
    assert in_words(seconds) == words


def test_an_error_without_details_has_an_empty_list_of_them() -> None:
    assert error_of(error_response(418, "ODD", "Odd.")) == {
        "code": 418,
        "message": "Odd.",
        "status": "ODD",
        "details": [],
    }
