"""Which paths are ours and which are relayed; health checks, dashboard, redirects."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from proxy.gemini.refusals import Fault, Refusal, Window
from proxy.gemini.tokens import Tokens
from proxy.ledger import Ledger
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent
from proxy.pool.adding import add_keys
from tests import gemini_errors as errors
from tests.conftest import (
    FLASH,
    TOKEN,
    Pool,
    RawUpstream,
    ReplaceUpstream,
    ask,
    claim_of,
    fake_secret,
    is_soon,
    locked_database,
    other_connection,
    usage_of_today,
)
from tests.fake_gemini import FakeGemini, Reply


@pytest.fixture
def person(transactional_db: None) -> Client:
    """A client that is logged in and may view everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("somebody"))
    return client


@pytest.fixture
def unapplied(transactional_db: None) -> Iterator[None]:
    """A database on which a migration is missing."""
    recorder = MigrationRecorder(connection)
    [(_, latest)] = MigrationLoader(connection).graph.leaf_nodes("proxy")
    recorder.record_unapplied("proxy", latest)
    yield
    recorder.record_applied("proxy", latest)


# Ours, or relayed


@pytest.mark.parametrize(
    "path",
    [
        *("/admin/", "/admin/login/", "/admin/nothing/", "/admin", "/dashboard", "/dashboard/", "/dashboard/nothing"),
        *("/static/nothing.css", "/static/admin/css/base.css", "/static/", "/healthz", "/readyz"),
    ],
)
def test_our_own_paths_are_never_relayed(client: Client, gemini: FakeGemini, pool: Pool, path: str) -> None:
    pool("one")

    response = client.get(path)
    response.close()

    assert response.status_code in (200, 302, 404)
    assert not gemini.seen


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models", "/v1beta/models", "/v7alpha/models", "/upload/v1/files", "/v1beta/files/admin"),
        *("/v1beta/openai/dashboard/x", "/$discovery/rest?version=v1"),
    ],
)
def test_the_api_s_paths_are_relayed(client: Client, gemini: FakeGemini, pool: Pool, path: str) -> None:
    pool("one")
    gemini.script("*", Reply())

    client.get(path).getvalue()

    assert [seen.path for seen in gemini.seen] == [path]


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/v1beta/", "/v7alpha/anything", "/adminx", "/administrator/", "/dashboards", "/healthz/x"),
        *("/healthzz", "/readyz/", "/staticx/a", "/static", "/favicon.ico", "/v1/admin/", "/v1beta/dashboard/"),
        *("/v1/messages", "/api/tags", "/v1beta/chatter", "/v1internal:generateContent", "/v1beta/openai/"),
    ],
)
def test_a_path_of_nobody_is_answered_with_the_right_base_urls(
    client: Client, gemini: FakeGemini, pool: Pool, path: str
) -> None:
    pool("one")

    for response in (client.get(path), ask(client, path)):
        error = response.json()["error"]
        assert (response.status_code, error["status"], error["code"]) == (404, "NOT_FOUND", 404)
        assert "Use http://testserver as the base URL for Gemini clients" in error["message"]
        assert "http://testserver/v1 for OpenAI clients" in error["message"]

    assert not gemini.seen
    assert not DailyUsage.objects.exists()
    assert Client().get(path).status_code == 401


def test_a_path_of_nobody_is_answered_also_where_the_host_is_odd(client: Client, pool: Pool) -> None:
    response = client.get("/nothing", headers={"host": "a b<c>"})

    message = response.json()["error"]["message"]
    assert response.status_code == 404
    assert "a b" not in message
    assert "base URL" in message


def test_a_relayed_request_needs_no_csrf_token_and_leaves_no_cookie(
    gemini: FakeGemini, pool: Pool, settings: Settings
) -> None:
    settings.ALLOW_DEFAULT_TOKEN = True
    pool("one")
    strict = Client(enforce_csrf_checks=True, headers={"x-goog-api-key": TOKEN, "origin": "https://elsewhere.example"})

    response = ask(strict)

    assert response.status_code == 200
    assert not response.cookies
    assert not strict.cookies


def test_a_relayed_request_touches_no_database_in_its_own_thread(
    client: Client, gemini: FakeGemini, pool: Pool, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    pool("one")

    with django_assert_num_queries(0):
        response = ask(client)

    assert response.status_code == 200


def test_an_answer_has_the_upstreams_headers_and_ours(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    headers = {"X-Goog-Upload-Status": "active", "Set-Cookie": "a=b", "Server-Timing": "gfet4t7; dur=12"}
    gemini.script("*", Reply(200, b"{}", headers | {"Content-Type": "text/odd"}))

    response = ask(client, headers={"x-request-id": "mine"})

    assert dict(response.headers) == {
        "Vary": "Origin, X-Origin, Referer",
        "X-XSS-Protection": "0",
        "X-Frame-Options": "SAMEORIGIN",
        "X-Content-Type-Options": "nosniff",
        "Server-Timing": "gfet4t7; dur=12",
        "Content-Type": "text/odd",
        "Content-Length": "2",
        "X-Goog-Upload-Status": "active",
        "X-Accel-Buffering": "no",
        "Content-Security-Policy": "sandbox",
        "X-Request-Id": "mine",
        "X-Keys-Tried": "1",
        "X-Waited-Seconds": "0.000",
    }


def test_a_header_that_comes_twice_loses_nothing(
    client: Client, pool: Pool, raw: RawUpstream, replace_upstream: ReplaceUpstream
) -> None:
    pool("one")
    replace_upstream(raw.url)
    raw.script(b"HTTP/1.1 200 OK\r\nVary: Origin\r\nVary: X-Origin\r\nVary: Referer\r\nContent-Length: 2\r\n\r\nok")

    response = ask(client)

    assert response.headers["Vary"] == "Origin, X-Origin, Referer"


def test_an_answer_without_a_content_type_gets_none(
    client: Client, pool: Pool, raw: RawUpstream, replace_upstream: ReplaceUpstream
) -> None:
    pool("one")
    replace_upstream(raw.url)
    raw.script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    response = ask(client)

    ours = {"X-Accel-Buffering", "X-Request-Id", "X-Keys-Tried", "X-Waited-Seconds"}
    ours |= {"X-Content-Type-Options", "Content-Security-Policy"}
    assert set(response.headers) == ours | {"Content-Length"}
    assert response.headers["Content-Length"] == "2"


@pytest.mark.parametrize("content_type", ["text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", ""])
def test_what_is_relayed_cannot_run_as_a_page_of_ours(
    client: Client, pool: Pool, raw: RawUpstream, replace_upstream: ReplaceUpstream, content_type: str
) -> None:
    pool("one")
    replace_upstream(raw.url)
    raw.script(
        f"HTTP/1.1 404 Odd\r\nContent-Type: {content_type}\r\nContent-Length: 2\r\n"
        "content-security-policy: sandbox allow-scripts allow-same-origin\r\nContent-Security-Policy: default-src *\r\n"
        "x-content-type-options: none\r\nLocation: /elsewhere\r\nSet-Cookie: sessionid=theirs\r\n"
        'Clear-Site-Data: "*"\r\nStrict-Transport-Security: max-age=1\r\nService-Worker-Allowed: /\r\n\r\nok'.encode()
    )

    response = ask(client)

    assert response.status_code == 404
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == "sandbox"
    about_the_host = {"Set-Cookie", "Clear-Site-Data", "Strict-Transport-Security", "Service-Worker-Allowed"}
    assert not about_the_host & set(response.headers)
    assert not response.cookies


# What caches keep


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/", 200),
        ("/admin/proxy/apikey/", 200),
        ("/admin/jsi18n/", 200),
        ("/admin/nothing/", 404),
        ("/admin/proxy/dailyusage/add/", 403),
        ("/dashboard/", 200),
        ("/dashboard/keys/?format=csv", 200),
        ("/dashboard/requests/?format=json", 200),
        ("/dashboard/nothing/", 404),
        ("/admin", 302),
        ("/dashboard", 302),
        ("/healthz", 200),
    ],
)
def test_no_cache_keeps_a_page_or_an_export(person: Client, path: str, status: int) -> None:
    response = person.get(path)

    assert response.status_code == status
    assert response.headers["Cache-Control"] == "no-store"


def test_no_cache_keeps_the_way_to_the_login_or_a_refused_form(transactional_db: None) -> None:
    strict = Client(enforce_csrf_checks=True)

    to_login, refused = strict.get("/dashboard/"), strict.post("/admin/login/", {"username": "a", "password": "b"})

    assert (to_login.status_code, refused.status_code) == (302, 403)
    assert [response.headers["Cache-Control"] for response in (to_login, refused)] == ["no-store"] * 2


def test_no_cache_keeps_the_page_of_an_error(person: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    person.raise_request_exception = False
    monkeypatch.setattr("proxy.dashboard.parts.page.render", lambda *_, **__: 1 / 0)

    response = person.get("/dashboard/")

    assert response.status_code == 500
    assert response.headers["Cache-Control"] == "no-store"


def test_caches_keep_static_files(client: Client) -> None:
    response = client.get("/static/admin/css/base.css")
    response.close()

    assert "max-age" in response.headers["Cache-Control"]


# Health


def test_healthz_tells_that_the_process_lives_and_asks_nobody(
    client: Client, gemini: FakeGemini, transactional_db: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        response = Client().get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_healthz_answers_while_the_database_is_locked(transactional_db: None) -> None:
    with locked_database("EXCLUSIVE"):
        assert Client().get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_can_be_asked_with_head_and_not_with_post(pool: Pool, path: str) -> None:
    pool("one")

    assert Client().head(path).status_code == 200
    assert Client().post(path).status_code == 405


def test_readyz_is_ready_with_a_usable_key(pool: Pool) -> None:
    pool("one")

    response = Client().get("/readyz")

    assert (response.status_code, response.json()) == (200, {"status": "ready"})


def problems() -> list[str]:
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json()["status"] == "not ready"
    found: list[str] = response.json()["problems"]
    return found


@pytest.mark.parametrize("state", ["none", "disabled", "bad", "deleted"])
def test_readyz_is_not_ready_without_a_usable_key(pool: Pool, state: str) -> None:
    if state != "none":
        pool("one")
    match state:
        case "disabled":
            ApiKey.objects.all().disable(timezone.now())
        case "bad":
            ApiKey.objects.all().mark_bad(Fault.LEAKED, "leaked", timezone.now())
        case "deleted":
            ApiKey.objects.all().forget(timezone.now())

    [problem] = problems()

    assert "no usable key" in problem


def test_readyz_is_not_ready_when_the_database_is_behind(pool: Pool, unapplied: None) -> None:
    pool("one")

    [problem] = problems()

    assert "manage.py migrate" in problem


def test_readyz_waits_for_somebody_who_writes(pool: Pool, service: Ledger) -> None:
    pool("one")
    service.close()

    def check() -> Any:
        with closing(connection):
            return Client().get("/readyz")

    with locked_database("IMMEDIATE") as let_go:
        with ThreadPoolExecutor() as threads:
            checking = threads.submit(check)
            assert is_soon(lambda: service._writer._thread)
            assert not checking.done()
            let_go()
        assert checking.result().status_code == 200


def test_readyz_is_not_ready_when_somebody_writes_for_too_long(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool("one")
    monkeypatch.setattr("proxy.views._PROBE_SECONDS", 0.1)

    with locked_database("IMMEDIATE"):
        [problem] = problems()

    assert problem == "The database accepts no changes."


@pytest.mark.sqlite
def test_readyz_is_not_ready_when_the_database_does_not_answer(pool: Pool, impatient: Ledger) -> None:
    pool("one")
    connection.close()  # the next one has the short patience
    other = other_connection()
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM django_session")
    other.commit()
    try:
        [problem] = problems()
    finally:
        other.close()

    assert "does not answer" in problem


# Pages for people


@pytest.mark.parametrize(("path", "target"), [("/admin", "/admin/"), ("/dashboard", "/dashboard/")])
def test_a_forgotten_slash_is_added(transactional_db: None, path: str, target: str) -> None:
    response = Client().get(path)

    assert (response.status_code, response.headers["Location"]) == (302, target)


def test_the_dashboard_needs_a_login(transactional_db: None) -> None:
    response = Client().get("/dashboard/")

    assert (response.status_code, response.headers["Location"]) == (302, "/admin/login/?next=/dashboard/")


def test_the_dashboard_is_for_staff(transactional_db: None) -> None:
    client = Client()
    client.force_login(User.objects.create_user("nobody"))

    assert client.get("/dashboard/").status_code == 302


def test_the_token_of_clients_opens_no_page(client: Client, transactional_db: None) -> None:
    assert client.get("/dashboard/").status_code == 302
    assert client.get("/admin/proxy/apikey/").status_code == 302


def test_the_dashboard_shows_today(
    person: Client, client: Client, gemini: FakeGemini, pool: Pool, service: Ledger
) -> None:
    keys = pool("one", "two", "three", "four")
    ApiKey.objects.filter(pk=keys[3].pk).disable(timezone.now())
    gemini.script(fake_secret("one"), errors.leaked())
    gemini.script(fake_secret("two"), errors.per_day_long())
    for _ in range(3):
        ask(client)
    service.close()

    page = person.get("/dashboard/").content.decode()

    figures = [part.split("<")[0].strip() for part in page.split("<dd>")[1:]]
    assert figures[1:6] == ["2", "1", "1", "3", "0"]
    for shown in (FLASH, "…0two", "requests or tokens per day", "Quotas reset in", "known default token"):
        assert shown in page
    assert not [key.secret for key in keys if key.secret and key.secret in page]


def test_an_empty_dashboard_says_what_to_do(person: Client) -> None:
    page = person.get("/dashboard/").content.decode()

    assert "The pool has no usable key. Add" in page
    assert "No requests in this period." in page


@pytest.mark.parametrize("path", ["/dashboard/", "/admin/proxy/apikey/", "/admin/proxy/dailyusage/"])
def test_a_page_costs_as_many_queries_with_40_keys_as_with_one(
    person: Client, service: Ledger, django_assert_num_queries: DjangoAssertNumQueries, path: str
) -> None:
    _live(service, 1)
    person.get(path)
    with CaptureQueriesContext(connection) as few:
        person.get(path)

    _live(service, 40)

    with django_assert_num_queries(len(few)):
        assert person.get(path).status_code == 200


def test_the_overview_costs_two_dozen_queries_at_most(person: Client, service: Ledger) -> None:
    _live(service, 40)

    with CaptureQueriesContext(connection) as asked:
        person.get("/dashboard/")

    assert len(asked) <= 24


def _live(ledger: Ledger, count: int) -> None:
    """Let keys answer, be refused, and go bad."""
    add_keys([fake_secret(f"key-{number}") for number in range(count * 3)], timezone.now(), project="shared")
    for number in range(count):
        claim = claim_of(ledger, f"model-{number % 10}")
        ledger.book_answer(claim, 200)
        ledger.book_tokens(claim, Tokens(1, 2, 3, 4))
    for key in ApiKey.objects.order_by("id")[: count * 2 : 2]:
        ExhaustionEvent.objects.record(key, FLASH, Refusal(Window.NONE), timezone.now(), None)
    ApiKey.objects.filter(id__in=ApiKey.objects.order_by("-id").values("id")[:count]).mark_bad(
        Fault.LEAKED, "leaked", timezone.now()
    )
    usage_of_today()
