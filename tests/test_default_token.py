"""Who may use the public default token."""

from pathlib import Path

import pytest
import requests
from django.test import Client
from pytest_django.fixtures import Settings

from tests.conftest import FLASH, Pool
from tests.fake_gemini import FakeGemini
from tests.service import running

PATH = f"/v1beta/models/{FLASH}:generateContent"


@pytest.fixture(autouse=True)
def default(settings: Settings, service: object, pool: Pool) -> None:
    settings.PLACEHOLDER_TOKEN = settings.DEFAULT_TOKEN
    settings.ALLOW_DEFAULT_TOKEN = False
    pool("one")


def status(settings: Settings, **meta: str) -> int:
    headers = {"HTTP_X_GOOG_API_KEY": settings.PLACEHOLDER_TOKEN, **meta}
    response = Client().post(PATH, "{}", content_type="application/json", **headers)
    if response.streaming:
        b"".join(response)  # to its end, so that its connection is kept
    response.close()
    return response.status_code


PRIVATE = ["127.0.0.1", "::1", "10.1.2.3", "172.16.0.9", "192.168.1.7", "fd00::1", "::ffff:10.0.0.1"]
PUBLIC = ["8.8.8.8", "2001:4860:4860::8888", "172.32.0.1", "100.64.0.1", "nonsense"]
FOREIGN = [
    {"HTTP_ORIGIN": "https://evil.example"},
    {"HTTP_ORIGIN": "null"},
    {"HTTP_SEC_FETCH_SITE": "cross-site"},
    {"HTTP_ORIGIN": "http://evil.example:5000", "HTTP_HOST": "evil.example:5000"},  # a name made to lead here
    {"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_HOST": "evil.example:5000"},
    {"HTTP_ORIGIN": "http://[", "HTTP_HOST": "localhost"},
]
OURS = [
    {"HTTP_ORIGIN": "http://localhost:3000", "HTTP_HOST": "localhost:5000"},
    {"HTTP_ORIGIN": "http://192.168.1.7:5000", "HTTP_HOST": "192.168.1.7:5000", "HTTP_SEC_FETCH_SITE": "same-origin"},
    {"HTTP_ORIGIN": "http://[::1]:5000", "HTTP_HOST": "[::1]:5000"},
    {"HTTP_ORIGIN": "app://obsidian.md"},
    {"HTTP_ORIGIN": "chrome-extension://abc", "HTTP_HOST": "keys.example.com"},
    {"HTTP_HOST": "keys.example.com"},  # no browser
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_answered(settings: Settings, address: str) -> None:
    assert status(settings, REMOTE_ADDR=address) == 200


@pytest.mark.parametrize("address", PUBLIC)
def test_strangers_are_not(settings: Settings, address: str) -> None:
    assert status(settings, REMOTE_ADDR=address) == 401
    assert status(settings, HTTP_X_FORWARDED_FOR=address) == 401
    assert status(settings, HTTP_X_FORWARDED_FOR=f"10.0.0.1, {address}") == 401


@pytest.mark.parametrize("meta", FOREIGN)
def test_pages_of_other_sites_are_not(settings: Settings, meta: dict[str, str]) -> None:
    assert status(settings, **meta) == 403


@pytest.mark.parametrize("meta", OURS)
def test_programs_and_pages_of_this_host_are_answered(settings: Settings, meta: dict[str, str]) -> None:
    assert status(settings, **meta) == 200


@pytest.mark.parametrize("meta", [*FOREIGN, {"REMOTE_ADDR": "8.8.8.8"}])
def test_a_token_of_ones_own_and_the_setting_lift_this(settings: Settings, meta: dict[str, str]) -> None:
    settings.ALLOW_DEFAULT_TOKEN = True
    assert status(settings, **meta) == 200
    settings.ALLOW_DEFAULT_TOKEN = False
    settings.PLACEHOLDER_TOKEN = "a token of our own"
    assert status(settings, **meta) == 200


def test_the_refusal_says_what_to_do_and_the_start_warns(
    tmp_path: Path, gemini: FakeGemini, settings: Settings
) -> None:
    with running(tmp_path, gemini, token=settings.DEFAULT_TOKEN) as service:
        headers = {"x-goog-api-key": service.token, "x-forwarded-for": "8.8.8.8"}
        refused = requests.post(service.url + PATH, json={}, headers=headers, timeout=20)

        assert refused.json()["error"]["message"] == (
            "The default token is accepted from this machine and private networks only. "
            "Run `python manage.py newtoken` to make your own token, or set ALLOW_DEFAULT_TOKEN=on."
        )
        assert "it works only from this machine and private networks" in service.output
        assert not gemini.seen
