"""Browsers: which web pages may send requests, and what their scripts can read."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from tests.conftest import GENERATE, TOKEN, Pool, ask
from tests.fake_gemini import FakeGemini
from tests.started import run

PAGE = "https://app.example.com"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-goog-api-key,content-type"}


@pytest.fixture
def allowed(settings: Settings, pool: Pool) -> None:
    settings.CORS_ORIGINS = [PAGE, "app://obsidian.md"]
    pool("one")


def preflight(origin: str, path: str = GENERATE) -> Any:
    response = Client().options(path, headers={"Origin": origin, **PREFLIGHT})
    response.getvalue()
    return response


@pytest.mark.parametrize("origin", [PAGE, "https://APP.example.com", "app://obsidian.md"])
@pytest.mark.usefixtures("allowed")
def test_a_preflight_is_answered_without_a_token(gemini: FakeGemini, origin: str) -> None:
    response = preflight(origin)

    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Access-Control-Allow-Headers"] == "x-goog-api-key,content-type"
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert "Origin" in response.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert not gemini.seen


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.com.evil.example", "null", "http://app.example.com", ""]
)
@pytest.mark.usefixtures("allowed")
def test_other_pages_get_no_permission(client: Client, gemini: FakeGemini, origin: str) -> None:
    assert preflight(origin).status_code == 401
    response = ask(client, headers={"x-goog-api-key": TOKEN, "Origin": origin})

    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" in response.headers["Vary"]


@pytest.mark.usefixtures("allowed")
def test_every_answer_of_the_relay_can_be_read(client: Client, gemini: FakeGemini) -> None:
    whole = ask(client, headers={"x-goog-api-key": TOKEN, "Origin": PAGE})
    wrong = ask(client, headers={"x-goog-api-key": "wrong", "Origin": PAGE})
    gemini.stop()
    failed = ask(client, headers={"x-goog-api-key": TOKEN, "Origin": PAGE})
    gemini.start()

    assert [response.status_code for response in (whole, wrong, failed)] == [200, 401, 502]
    for response in (whole, wrong, failed):
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "X-Goog-Upload-URL" in response.headers["Access-Control-Expose-Headers"]
    assert not any(name.lower() == "origin" for seen in gemini.seen for name, _ in seen.headers)


@pytest.mark.parametrize("path", ["/admin/login/", "/dashboard/", "/healthz", "/readyz"])
@pytest.mark.usefixtures("allowed")
def test_our_own_pages_are_never_shared(client: Client, path: str) -> None:
    for response in (preflight(PAGE, path), client.get(path, headers={"Origin": PAGE})):
        assert "Access-Control-Allow-Origin" not in response.headers


def test_without_the_setting_nothing_changes(
    client: Client, gemini: FakeGemini, pool: Pool, settings: Settings
) -> None:
    settings.ALLOW_DEFAULT_TOKEN = True
    pool("one")
    response = ask(client, headers={"x-goog-api-key": TOKEN, "Origin": PAGE})

    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response.headers
    assert preflight(PAGE).status_code == 401


@pytest.mark.usefixtures("allowed")
def test_the_default_token_works_from_these_pages_only(settings: Settings) -> None:
    settings.PLACEHOLDER_TOKEN, settings.ALLOW_DEFAULT_TOKEN = settings.DEFAULT_TOKEN, False
    headers = {"x-goog-api-key": settings.DEFAULT_TOKEN, "Sec-Fetch-Site": "cross-site"}

    assert ask(Client(), headers={**headers, "Origin": PAGE}).status_code == 200
    assert ask(Client(), headers={**headers, "Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("origins", "token", "message"),
    [
        ("*", "", "CORS_ORIGINS=* would let every web page use the public default token."),
        ("https://a.example, *", "", "CORS_ORIGINS=* would let every web page use the public default token."),
        ("a.example", "mine-1234567890", "CORS_ORIGINS must be * or origins such as"),
        ("https://a.example/path", "mine-1234567890", "CORS_ORIGINS must be * or origins such as"),
        ("*", "mine-1234567890", ""),
        ("https://a.example/,http://localhost:3000", "", ""),
    ],
)
def test_the_setting_is_checked(tmp_path: Path, origins: str, token: str, message: str) -> None:
    variables = {"PLACEHOLDER_TOKEN": token} if token else {}
    done = run(tmp_path, "-c", "from django.conf import settings; settings.DEBUG", CORS_ORIGINS=origins, **variables)

    assert (done.returncode != 0) == bool(message)
    assert message in done.stderr
