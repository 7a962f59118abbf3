"""HTTP with gunicorn: large, chunked and slow bodies, several requests on one connection, and garbage."""

import http.client
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from tests.conftest import FLASH
from tests.fake_gemini import FakeGemini
from tests.service import SECRETS, Service, eventually, running

pytestmark = pytest.mark.process

LARGE = b'{"contents": [{"parts": [{"text": "' + b"0123456789abcdef" * (30 * 65_536) + b'"}]}]}'
PATH = f"/v1beta/models/{FLASH}:generateContent"


def pieces_of(body: bytes, size: int = 100_003) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def answer_of(service: Service, request: bytes) -> bytes:
    """Send raw bytes, and return everything until the service closes the connection."""
    with service.connect() as connection:
        connection.settimeout(15)
        try:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65_536), b""))
        except (ConnectionResetError, BrokenPipeError):
            return b""


@pytest.mark.parametrize("is_chunked", [False, True], ids=["Content-Length", "chunked"])
def test_thirty_megabytes_arrive_byte_for_byte_at_the_next_key_too(
    tmp_path: Path, gemini: FakeGemini, is_chunked: bool
) -> None:
    gemini.exhaust(*SECRETS[:2])
    body: bytes | Iterable[bytes] = pieces_of(LARGE) if is_chunked else LARGE
    with running(tmp_path, gemini) as service:
        answer = service.ask(json=None, data=body)

    assert answer.status_code == 200
    assert gemini.secrets_seen == SECRETS[:3]
    assert {sha256(seen.body).digest() for seen in gemini.seen} == {sha256(LARGE).digest()}
    assert {seen.header("Content-Length") for seen in gemini.seen} == {str(len(LARGE))}
    assert {seen.header("Transfer-Encoding") for seen in gemini.seen} == {None}


def test_small_chunks_and_their_trailers_make_one_body(service: Service, gemini: FakeGemini) -> None:
    head = service.head("Transfer-Encoding: chunked", "Connection: close")
    answer = answer_of(service, head + b'1;a=b\r\n{\r\n7\r\n"a": 1}\r\n0\r\nX-Trailer: yes\r\n\r\n')

    assert answer.startswith(b"HTTP/1.1 200")
    assert gemini.seen[0].body == b'{"a": 1}'


def test_a_body_declared_too_large_is_refused_before_it_is_sent(service: Service, gemini: FakeGemini) -> None:
    with service.connect() as connection:
        connection.sendall(service.head(f"Content-Length: {101 * 1024 * 1024}"))
        answer = connection.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 413")
    assert not gemini.seen


@pytest.mark.parametrize("is_chunked", [False, True], ids=["Content-Length", "chunked"])
def test_a_client_that_sends_too_much_reads_why_it_was_refused(
    tmp_path: Path, gemini: FakeGemini, is_chunked: bool
) -> None:
    with running(tmp_path, gemini, MAX_BODY_MB="2") as service:
        body: bytes | Iterable[bytes] = pieces_of(LARGE) if is_chunked else LARGE
        answer = service.ask(json=None, data=body)
        small = service.ask()

    assert answer.status_code == 413
    assert "2 MB" in answer.json()["error"]["message"]
    assert small.status_code == 200
    assert len(gemini.seen) == 1


def test_a_client_that_expects_100_continue_gets_it(service: Service, gemini: FakeGemini) -> None:
    with service.connect() as connection:
        connection.sendall(service.head("Content-Length: 2", "Expect: 100-continue", "Connection: close"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(b"{}")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert answer.startswith(b"HTTP/1.1 200")
    assert gemini.seen[0].body == b"{}"


def test_slow_uploads_arrive_and_delay_no_other_request(service: Service, gemini: FakeGemini) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(20)]
        for connection in slow:
            connection.sendall(service.head("Content-Length: 8", "Connection: close") + b'{"a"')
        began = time.monotonic()
        statuses = {service.ask().status_code for _ in range(5)}
        took_seconds = time.monotonic() - began
        assert len(gemini.seen) == 5
        for connection in slow:
            connection.sendall(b": 1}")
        answers = [connection.recv(15) for connection in slow]

    assert statuses == {200}
    assert took_seconds < 3
    assert set(answers) == {b"HTTP/1.1 200 OK"}
    assert sum(seen.body == b'{"a": 1}' for seen in gemini.seen) == 20


@pytest.mark.parametrize(
    "begun", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}"], ids=["length", "chunked"]
)
def test_a_body_broken_off_is_never_sent_on(service: Service, gemini: FakeGemini, begun: bytes) -> None:
    head = service.head("Connection: close").removesuffix(b"\r\n")
    with service.connect() as connection:
        connection.sendall(head + begun)

    assert {service.ask().status_code for _ in range(4)} == {200}
    assert len(gemini.seen) == 4


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"\x00" * 5000,
        b"HELLO\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda garbage: repr(garbage[:20]),
)
def test_garbage_is_refused_and_changes_nothing(service: Service, gemini: FakeGemini, garbage: bytes) -> None:
    before, answer = len(gemini.seen), b""
    with service.connect() as connection:
        connection.sendall(garbage)
        with suppress(OSError):  # it was refused so fast that the connection is gone already
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            answer = connection.recv(65_536)

    assert not answer or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
    assert service.ask().status_code == 200
    assert len(gemini.seen) == before + 1
    assert "Traceback" not in service.output


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(service: Service, gemini: FakeGemini) -> None:
    request = service.head("Content-Length: 2", action="streamGenerateContent?alt=sse").replace(
        b"HTTP/1.1", b"HTTP/1.0"
    )
    head, _, body = answer_of(service, request + b"{}").partition(b"\r\n\r\n")

    assert b" 200 " in head.splitlines()[0]
    assert b"chunked" not in head.lower()
    assert body.startswith(b"data: {")
    assert body.endswith(b"}\r\n\r\n")


def test_an_answer_without_a_body_does_not_hold_the_connection_up(service: Service) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
        for method, path in [("HEAD", "/v1beta/models"), ("GET", "/v1beta/models"), ("HEAD", "/healthz")] * 2:
            connection.request(method, path, headers={"x-goog-api-key": service.token})
            response = connection.getresponse()
            assert response.status == 200
            assert bool(response.read()) == (method == "GET")


def test_a_refused_client_that_has_sent_its_body_can_ask_again(service: Service, gemini: FakeGemini) -> None:
    with requests.Session() as session:
        wrong = session.post(service.url + PATH, data=LARGE[:3_000_000], headers={"x-goog-api-key": "wrong"})
        right = session.post(service.url + PATH, json={}, headers={"x-goog-api-key": service.token})

    assert wrong.status_code == 401
    assert wrong.json()["error"]["status"] == "UNAUTHENTICATED"
    assert right.status_code == 200
    assert len(gemini.seen) == 1


def test_large_bodies_do_not_stay_in_memory_or_in_files(service: Service, gemini: FakeGemini) -> None:
    def open_files() -> int:
        links = [link for pid in service.workers for link in Path(f"/proc/{pid}/fd").iterdir()]
        return sum("deleted" in str(link.readlink()) for link in links if link.is_symlink())

    before = open_files()
    for _ in range(3):
        assert service.ask(json=None, data=LARGE).status_code == 200
    gemini.seen.clear()

    assert eventually(lambda: open_files() <= before, 5)
