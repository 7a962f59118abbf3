"""Behind a proxy that terminates TLS: what HTTPS_ONLY requires of browsers, and does not change for API clients."""

from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
import requests

from tests.fake_gemini import FakeGemini
from tests.service import Service, running

pytestmark = pytest.mark.process

VIA_HTTPS = {"X-Forwarded-Proto": "https"}


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(tmp_path, gemini, HTTPS_ONLY="on", WEB_WORKERS="1") as service:
        yield service


def get(service: Service, path: str, headers: dict[str, str]) -> requests.Response:
    return requests.get(service.url + path, headers=headers, allow_redirects=False, timeout=30)


def test_pages_want_https_and_clients_are_served_as_before(service: Service) -> None:
    for path in ("/admin/login/", "/dashboard/", "/dashboard", "/static/admin/css/base.css"):
        response = get(service, path, {})
        assert (response.status_code, response.headers["Location"]) == (301, f"https://127.0.0.1:{service.port}{path}")
        assert "Strict-Transport-Security" not in response.headers

    page = get(service, "/admin/login/", VIA_HTTPS)
    cookie = SimpleCookie(page.headers["Set-Cookie"])["csrftoken"]

    assert page.status_code == 200
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert cookie["secure"]
    assert [get(service, path, {}).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    assert service.ask().status_code == 200


def test_without_the_setting_https_is_not_required(gemini: FakeGemini, tmp_path: Path) -> None:
    with running(tmp_path, gemini, WEB_WORKERS="1") as service:
        pages = [get(service, "/admin/login/", headers) for headers in ({}, VIA_HTTPS)]

    assert [page.status_code for page in pages] == [200, 200]
    assert not any("Strict-Transport-Security" in page.headers for page in pages)
    assert not any(SimpleCookie(page.headers["Set-Cookie"])["csrftoken"]["secure"] for page in pages)
