"""The service's logs: no token or key, whatever goes wrong, and rotation with two workers."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tests import gemini_errors as errors
from tests.conftest import FLASH, fake_secret
from tests.fake_gemini import FakeGemini, Fault, Reply
from tests.service import Service, eventually, running

pytestmark = pytest.mark.process

TOKEN = "tok-en/of~this-test-only"
ODD_SECRET = "a-key-of-no-known-shape-77"
SECRETS = [*(fake_secret(f"logged-{number}") for number in range(3)), "AQ.Ab8RN6" + "logged-too" * 4, ODD_SECRET]
PATH = f"/v1beta/models/{FLASH}:generateContent"


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(
        tmp_path, gemini, secrets=SECRETS, token=TOKEN, LOG_LEVEL="DEBUG", READ_TIMEOUT_SECONDS="1"
    ) as service:
        yield service


def test_neither_tokens_nor_keys_are_written_down(service: Service, gemini: FakeGemini) -> None:
    shown = {"key": TOKEN}
    someone_elses = fake_secret("of-a-client-by-mistake")
    url = service.url + PATH
    gemini.script(SECRETS[0], Reply(500, f"<html>{SECRETS[0]}</html>".encode()))
    for secret in SECRETS:
        words = f"Permission denied: Consumer 'api_key:{secret}' has been suspended. Key {secret} at ?key={secret}."
        gemini.script(secret, errors.error(403, "PERMISSION_DENIED", words, {"reason": "CONSUMER_SUSPENDED"}))

    statuses = [requests.post(url, params=shown, json={}, timeout=30).status_code for _ in range(6)]
    requests.post(f"{url}?%6bey={quote(TOKEN, safe='')}", json={}, timeout=30)
    requests.post(f"{url}?access_token={quote(TOKEN)}&a=b", json={}, timeout=30)
    requests.post(url, json={}, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    for path in ("/admin/", "/admin/nothing/", "/dashboard/", "/dashboard/nothing", "/static/nothing.css", "/readyz"):
        requests.get(service.url + path, params=shown, timeout=30)
        requests.delete(service.url + path, params=shown, timeout=30)
    requests.get(f"{service.url}/v1/models?key={someone_elses}", timeout=30)
    for line in (
        f"GET /v1/models?key={TOKEN} HTTP/9.9",
        f"GET /v1/models?key={TOKEN} and more HTTP/1.1",
        f"get[] /v1/models?key={TOKEN} HTTP/1.1",
        f"GET /../v1/models?key={TOKEN} HTTP/1.1",
        f"GET /{'a' * 9000}?key={TOKEN} HTTP/1.1",
        f"GET / HTTP/1.1\r\nx-goog-api-key : {TOKEN}",
        f"GET / HTTP/1.1\r\nx-goog-api-key: {TOKEN}\x00",
        f"GET / HTTP/1.1\r\nx-goog-api-key\x01: {TOKEN}",
        f"{TOKEN} / HTTP/1.1",
        f"GET {TOKEN} HTTP/1.1",
    ):
        with service.connect() as connection:
            connection.sendall(f"{line}\r\n\r\n".encode())
            connection.recv(65_536)
    service.kill()

    assert 200 not in statuses
    written = service.output + service.logs
    assert "suspended" in written
    for secret in (TOKEN, quote(TOKEN, safe=""), quote(TOKEN), *SECRETS, someone_elses):
        assert secret not in written, [line for line in written.splitlines() if secret in line][:3]


def test_faults_on_the_wire_are_logged_without_tokens_and_keys(service: Service, gemini: FakeGemini) -> None:
    gemini.script("*", Fault.RESET_BEFORE, Fault.HANG, Fault.RESET_MIDDLE)
    for action in ("generateContent", "generateContent", "streamGenerateContent"):
        with suppress(requests.RequestException):
            requests.post(f"{service.url}/v1beta/models/{FLASH}:{action}?alt=sse&key={TOKEN}", json={}, timeout=30)
    gemini.stop()
    unreachable = requests.post(f"{service.url}{PATH}?key={TOKEN}", json={}, timeout=30)
    gemini.start()
    service.kill()

    assert unreachable.status_code == 502
    written = service.output + service.logs
    assert "cannot be reached" in written
    for secret in (TOKEN, *SECRETS):
        assert secret not in written, [line for line in written.splitlines() if secret in line][:3]


def test_two_workers_rotate_one_log_and_lose_no_line(tmp_path: Path, gemini: FakeGemini) -> None:
    with running(tmp_path, gemini, LOG_LEVEL="DEBUG") as service:
        for number in range(1100):
            # gunicorn writes down what it could not understand; these are lines of their own by their number.
            with service.connect() as connection:
                connection.sendall(f"N{number:06}N{'x' * 3800} nonsense\r\n\r\n".encode())
                connection.recv(1000)
        folder = tmp_path / "logs"
        files = sorted(path for path in folder.iterdir() if re.search(r"\.log(\.\d+)?$", path.name))

        assert [path.name for path in files] == ["keymanager.log", *(f"keymanager.log.{n}" for n in (1, 2, 3))]
        assert all(path.stat().st_size < 1_000_000 + 5_000 for path in files)  # the last line may go over
        in_order = "".join(path.read_text() for path in [files[3], files[2], files[1], files[0]])
        kept = [int(number) for number in re.findall(r"N(\d{6})N", in_order)]
        assert kept == sorted(kept)
        assert sorted(set(kept)) == list(range(min(kept), 1100))
        assert "Logging error" not in service.output
        assert eventually(lambda: service.ask().status_code == 200)
