"""The fast path and the ordinary path to the relay, with gunicorn: a client cannot tell them apart."""

import re
from contextlib import closing
from threading import Event

import pytest

from tests.conftest import TOKEN
from tests.fake_gemini import FakeGemini, Fault
from tests.served.test_wire import answer_of
from tests.service import Service

pytestmark = pytest.mark.process

FAST: list[str] = []
ORDINARY = ["X-Twice: 1", "X-Twice: 2"]
both_paths = pytest.mark.parametrize("path", [pytest.param(FAST, id="fast"), pytest.param(ORDINARY, id="ordinary")])


def request(service: Service, *lines: str, body: bytes = b"{}", action: str = "generateContent") -> bytes:
    return service.head(f"Content-Length: {len(body)}", *lines, action=action) + body


def same(answer: bytes) -> bytes:
    """Return an answer without what is new in each."""
    return re.sub(rb"(?m)^(Date|X-Request-Id|X-Waited-Seconds): .*\r\n", b"", answer)


@pytest.mark.parametrize(
    "line",
    [
        "POST /v1beta/models/gemini-2.5-flash:generateContent HTTP/1.1",
        "POST /v1beta/models/gemini-2.5-flash:countTokens HTTP/1.1",
        "GET /v1beta/models HTTP/1.1",
        "GET /v1/models?key=wrong HTTP/1.1",
        "GET /nothing/here HTTP/1.1",
        "GET /v1beta/../admin HTTP/1.1",
        "POST /v1beta/models/gemini-2.5-flash:streamGenerateContent HTTP/1.1",
        "DELETE /v1beta/models/abc HTTP/1.1",
        "PUT /v1beta/models HTTP/1.1",
        "GET /ws/live HTTP/1.1",
    ],
)
@pytest.mark.parametrize("token", [TOKEN, "wrong"])
@pytest.mark.parametrize("body", [b"{}", b""])
def test_both_paths_send_the_same_bytes(
    service: Service, gemini: FakeGemini, line: str, token: str, body: bytes
) -> None:
    gemini.chunks = 1
    lines = [line, "Host: localhost", f"x-goog-api-key: {token}", "Connection: close", f"Content-Length: {len(body)}"]
    fast, ordinary = (
        answer_of(service, "\r\n".join([*lines, *path, "", ""]).encode() + body) for path in (FAST, ORDINARY)
    )

    assert fast.startswith(b"HTTP/1.1 ")
    assert same(fast) == same(ordinary)
    seen = [(seen.method, seen.path, seen.body) for seen in gemini.seen]
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


@both_paths
def test_requests_on_one_connection_are_answered_in_turn(service: Service, gemini: FakeGemini, path: list[str]) -> None:
    texts = [b'{"text": "%d"}' % number for number in range(5)]
    last = request(service, "Connection: close", *path, body=b'{"text": "last"}')
    received = answer_of(service, b"".join(request(service, *path, body=text) for text in texts) + last)

    assert received.count(b"HTTP/1.1 200 OK") == 6
    assert [seen.body for seen in gemini.seen] == [*texts, b'{"text": "last"}']


def test_a_connection_can_change_from_one_path_to_the_other(service: Service, gemini: FakeGemini) -> None:
    page = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = request(service) + page + request(service) + request(service, "Connection: close")
    received = answer_of(service, sent)

    assert received.count(b"HTTP/1.1 200 OK") == 4
    assert len(gemini.seen) == 3


@both_paths
def test_a_body_that_was_refused_unread_does_not_become_a_request(
    service: Service, gemini: FakeGemini, path: list[str]
) -> None:
    hidden = request(service)
    refused = b"\r\n".join(
        [b"POST /v1/models/a:b HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(hidden)]
        + [line.encode() for line in path]
        + [b"", hidden]
    )
    received = answer_of(service, refused + request(service, "Connection: close", *path, body=b'{"text": "second"}'))

    assert received.count(b"HTTP/1.1 ") == 2
    assert received.startswith(b"HTTP/1.1 401 ")
    assert [seen.body for seen in gemini.seen] == [b'{"text": "second"}']


@both_paths
def test_a_refused_body_that_arrives_late_does_not_become_a_request(
    service: Service, gemini: FakeGemini, path: list[str]
) -> None:
    hidden = request(service)
    lines = ["POST /v1/models/a:b HTTP/1.1", "Host: localhost", f"Content-Length: {len(hidden)}", *path, "", ""]
    with service.connect() as connection:
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
        connection.sendall(hidden[:10])
        connection.sendall(hidden[10:] + request(service, "Connection: close", *path, body=b'{"text": "second"}'))
        received = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert received.count(b"HTTP/1.1 ") == 1
    assert [seen.body for seen in gemini.seen] == [b'{"text": "second"}']


@both_paths
def test_a_body_may_follow_its_head_in_pieces(service: Service, gemini: FakeGemini, path: list[str]) -> None:
    body = b'{"text": "' + 100_000 * b"x" + b'"}'
    head = service.head(f"Content-Length: {len(body)}", "Connection: close", *path)
    with service.connect() as connection:
        connection.sendall(head)
        for start in range(0, len(body), 9973):
            connection.sendall(body[start : start + 9973])
        received = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert gemini.seen[0].body == body


@both_paths
def test_an_answer_that_breaks_off_has_no_end(service: Service, gemini: FakeGemini, path: list[str]) -> None:
    gemini.script("*", Fault.RESET_MIDDLE)
    received = answer_of(service, request(service, *path, action="streamGenerateContent?alt=sse"))

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert not received.endswith(b"0\r\n\r\n")


@both_paths
def test_a_client_that_leaves_ends_its_request_upstream(service: Service, gemini: FakeGemini, path: list[str]) -> None:
    gemini.hold = Event()
    with closing(service.connect()) as connection:
        connection.sendall(request(service, *path, action="streamGenerateContent?alt=sse"))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")

    assert gemini.wait_for(lambda: gemini.closed_early == 1, 5)
