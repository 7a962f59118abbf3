"""The key manager below a path of a reverse proxy: pages, static files, cookies and the relay."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
import requests
from django.test import Client
from django.urls import set_script_prefix

from tests.conftest import GENERATE, TOKEN, Pool, ask
from tests.fake_gemini import FakeGemini
from tests.service import Service, eventually, free_port

PREFIX = {"HTTP_X_FORWARDED_PREFIX": "/gemini"}


@pytest.fixture(autouse=True)
def no_prefix() -> Iterator[None]:
    """Start and end without a prefix, like each request in a server. A test client would leave the last one."""
    set_script_prefix("/")
    yield
    set_script_prefix("/")


@pytest.mark.django_db
@pytest.mark.parametrize("front", ["", "/gemini"])
@pytest.mark.parametrize("prefix", ["/gemini", "/gemini/", "gemini"])
def test_pages_stand_below_the_prefix_whether_or_not_it_was_taken_off(
    admin_client: Client, front: str, prefix: str
) -> None:
    header = {"HTTP_X_FORWARDED_PREFIX": prefix}

    page = admin_client.get(f"{front}/dashboard/", **header)  # type: ignore[arg-type]  # headers as WSGI has them
    links = re.findall(r"""(?:href|src|action)="(/[^"]*)""", page.content.decode())

    assert page.status_code == 200
    assert links
    assert [link for link in links if not link.startswith("/gemini/")] == []
    for name in ("admin", "dashboard"):
        moved = admin_client.get(f"{front}/{name}", **header)  # type: ignore[arg-type]
        assert moved.headers["Location"] == f"/gemini/{name}/"


@pytest.mark.django_db
@pytest.mark.parametrize("front", ["", "/gemini"])
def test_people_are_sent_to_the_login_below_the_prefix(client: Client, front: str) -> None:
    response = client.get(f"{front}/dashboard/", headers={"X-Forwarded-Prefix": "/gemini"})
    login = client.get(f"{front}/admin/login/", headers={"X-Forwarded-Prefix": "/gemini"})

    assert response.headers["Location"] == "/gemini/admin/login/?next=/gemini/dashboard/"
    assert {cookie["path"] for cookie in login.cookies.values()} == {"/gemini/"}


@pytest.mark.parametrize(
    "header",
    [
        {"HTTP_X_FORWARDED_PREFIX": "//example.org"},
        {"HTTP_X_FORWARDED_PREFIX": "/a/../b"},
        {"HTTP_X_FORWARDED_PREFIX": "/a\\b"},
        {"HTTP_X_FORWARDED_PREFIX": "/a, /b"},
        {"HTTP_X_FORWARDED_PREFIX": "/"},
        {"HTTP_X_FORWARDED_PREFIX": ""},
        {**PREFIX, "REMOTE_ADDR": "10.1.2.3"},
        {**PREFIX, "REMOTE_ADDR": "nonsense"},
    ],
)
def test_a_prefix_that_is_none_or_of_a_stranger_changes_nothing(client: Client, header: dict[str, str]) -> None:
    response = client.get("/dashboard", **header)  # type: ignore[arg-type]

    assert response.headers["Location"] in {"/dashboard/", "/example.org/dashboard/"}


@pytest.mark.parametrize("front", ["", "/v1/models"])
def test_requests_are_relayed_below_the_prefix(client: Client, gemini: FakeGemini, pool: Pool, front: str) -> None:
    pool("one")
    header = {"X-Forwarded-Prefix": "/v1/models", "x-goog-api-key": TOKEN}

    good = ask(client, f"{front}{GENERATE}", headers={"X-Forwarded-Prefix": "/v1/models"})
    lost = client.get(f"{front}/nothing", headers=header)
    set_script_prefix("/")
    after = ask(client, "/nothing")

    assert good.status_code == 200
    assert [seen.path for seen in gemini.seen] == [GENERATE]
    assert "Use http://testserver/v1/models as the base URL" in lost.json()["error"]["message"]
    assert "Use http://testserver as the base URL" in after.json()["error"]["message"]


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/errors;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_http_version 1.1; proxy_buffering off;
  server {{
    listen 127.0.0.1:{port};
    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Prefix $prefix;
    location /taken/ {{ set $prefix /taken; proxy_pass {url}/; }}
    location /left/ {{ set $prefix /left; proxy_pass {url}; }}
  }}
}}
"""


@contextmanager
def nginx_before(url: str, folder: Path) -> Iterator[str]:
    """Run nginx in front of `url`. Yield its address once it answers."""
    folder.mkdir()
    port = free_port()
    (folder / "conf").write_text(NGINX.format(folder=folder, port=port, url=url))
    with Popen(["nginx", "-e", str(folder / "errors"), "-c", str(folder / "conf")]) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            assert eventually(lambda: _answers(address))
            yield address
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=5).status_code)
    except requests.ConnectionError:
        return False


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_people_and_clients_come_through_nginx(tmp_path: Path, gemini: FakeGemini) -> None:
    with Service(tmp_path / "service", gemini) as service:
        service.start().wait_until_ready()
        [password] = re.findall(r"password (\S+)", service.output)
        with nginx_before(service.url, tmp_path / "nginx") as url:
            for base in (f"{url}/taken", f"{url}/left"):
                asked = requests.post(
                    f"{base}{GENERATE}", headers={"x-goog-api-key": service.token}, json={}, timeout=30
                )
                with requests.Session() as browser:
                    login = browser.get(f"{base}/dashboard/", timeout=30)
                    token = browser.cookies["csrftoken"]
                    form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token}
                    page = browser.post(login.url, form, headers={"Origin": url}, timeout=30)
                    [sheet, *_] = re.findall(r'href="([^"]+\.css)"', page.text)
                    paths = {cookie.path for cookie in browser.cookies}

                assert asked.status_code == 200
                assert login.url.startswith(f"{base}/admin/login/")
                assert page.url == f"{base}/dashboard/"
                assert requests.get(f"{url}{sheet}", timeout=30).headers["Content-Type"].startswith("text/css")
                assert paths == {base.removeprefix(url) + "/"}
    assert {seen.path for seen in gemini.seen} == {GENERATE}
