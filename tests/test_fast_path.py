"""The fast path from a client's bytes to the relay: which requests take it, what the view sees, and what is sent."""

import socket
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import fast_path

HEAD = b"POST /v1beta/models/x:y HTTP/1.1\r\nHost: a\r\n"
FILLED = {"REQUEST_METHOD", "QUERY_STRING", "RAW_URI", "REMOTE_ADDR", "CONTENT_TYPE", "CONTENT_LENGTH"}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end of a connection, and the server's."""
    client, server = socket.socketpair()
    client.settimeout(10)
    with client, server:
        yield client, server


def read(received: bytes, sock: Any = None) -> fast_path.RelayRequest | None:
    return fast_path.read_request(received, sock, "192.0.2.7", 30)


# Which requests take it


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /v1beta/models/gemini-2.5-flash:generateContent HTTP/1.1",
        "GET /v1/models?pageSize=5&key=a%20b HTTP/1.1",
        "DELETE /v1beta/files/abc HTTP/1.1",
        "PATCH /v1beta/cachedContents/abc HTTP/1.1",
        "POST /administration HTTP/1.1",
    ],
)
def test_requests_to_the_relay_take_it(request_line: str) -> None:
    assert read(f"{request_line}\r\nHost: a\r\n\r\n".encode()) is not None


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /admin/ HTTP/1.1",
        "GET /admin HTTP/1.1",
        "GET /dashboard/requests/?page=2 HTTP/1.1",
        "GET /static/proxy/style.css HTTP/1.1",
        "GET /healthz HTTP/1.1",
        "GET /readyz?verbose HTTP/1.1",
        "GET /%61dmin/ HTTP/1.1",
        "GET //admin/ HTTP/1.1",
        "GET http://a/v1/models HTTP/1.1",
        "GET /v1/models#part HTTP/1.1",
        "GET /v1/models\x7f HTTP/1.1",
        "GET /v1/mod els HTTP/1.1",
        "GET /v1/models HTTP/1.0",
        "GET /v1/models HTTP/1.1 ",
        "GET  /v1/models HTTP/1.1",
        "get /v1/models HTTP/1.1",
        "HEAD /v1/models HTTP/1.1",
        "OPTIONS /v1/models HTTP/1.1",
        "CONNECT a:443 HTTP/1.1",
        "PRI * HTTP/2.0",
    ],
)
def test_our_pages_and_unusual_request_lines_do_not(request_line: str) -> None:
    assert read(f"{request_line}\r\nHost: a\r\n\r\n".encode("latin-1")) is None


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Host: a",
        b"A: 1\r\nA: 2",
        b"A: 1\r\na: 1",
        b"Content-Length: 1\r\nContent-Length: 1",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Content-Length: -1",
        b"Content-Length: +1",
        b"Content-Length: 1_0",
        b"Content-Length: 0x10",
        b"Content-Length: \xb2",
        b"Content-Length:",
        b"Content-Length: 1048577",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Connection: close, x-goog-api-key",
        b"X-Forwarded-Prefix: /gemini",
        b"X-Forwarded-SSL: on",
        b"Proxy: http://evil",
        b"x_goog_api_key: a",
        b"A : 1",
        b" A: 1",
        b"A: 1\r\n folded",
        b"A: 1\n",
        b"A: 1\rB: 2",
        b"A: \0",
        b": empty",
        b"no colon",
        b"A: " + 8190 * b"x",
        b"\r\n".join(b"N%d: x" % number for number in range(101)),
    ],
)
def test_unusual_headers_do_not(lines: bytes) -> None:
    host = b"" if lines == b"" else b"Host: a\r\n"
    assert read(b"POST /v1/models/x:y HTTP/1.1\r\n" + host + lines + b"\r\n\r\n") is None


@pytest.mark.parametrize("received", [HEAD, HEAD + b"\r", b"P", b"\x16\x03\x01\x02\x00", b"\r\n" + HEAD + b"\r\n"])
def test_half_a_head_does_not(received: bytes) -> None:
    assert read(received) is None


# What the view sees

TOKENS = st.text("!#$%&'*+.^`|~-_09azAZ \t", max_size=6)
VALUES = st.text(st.characters(max_codepoint=255), max_size=12)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Host", "Content-Length", "Content-Type", "X-Api", "Connection", "Transfer-Encoding"])
        | TOKENS,
        st.sampled_from([":", ": ", ":\t", " :"]),
        st.sampled_from(["5", "close", "keep-alive", "chunked", "a, b"]) | VALUES,
    ),
    max_size=5,
)
TARGETS = st.text("/?#&=%:;.@-aZ0\"'\\{} \t\x7fé", max_size=12).map(lambda text: f"/{text}")


@given(st.sampled_from(["GET", "POST", "DELETE"]), TARGETS, HEADERS)
@example("POST", "/a?b?c", [("Content-Length", ": ", "5"), ("X", ":", " \t a \t ")])
@example("POST", "/a", [("X", ":", "\xa0\x85a\xa0")])
def test_what_it_takes_is_what_gunicorn_reads(method: str, target: str, headers: list[tuple[str, str, str]]) -> None:
    lines = [f"{method} {target} HTTP/1.1", "Host: a", *("".join(header) for header in headers)]
    received = "\r\n".join([*lines, "", ""]).encode("latin-1") + b"12345"
    if (request := read(received)) is None:
        return

    config = Config()
    peer = ("192.0.2.7", 50_000)
    parsed = next(RequestParser(config, iter([received]), peer))
    _, environ = create(parsed, None, peer, ("127.0.0.1", 5000), config)

    seen = {name: value for name, value in environ.items() if name.startswith("HTTP_") or name in FILLED}
    assert {name: value for name, value in request.META.items() if isinstance(value, str)} == seen
    assert request.path_info == environ["PATH_INFO"]
    body = request.META["wsgi.input"]
    assert body.read(100) == parsed.body.read(100)
    assert body.next_request == b"12345"[int(seen.get("CONTENT_LENGTH", 0)) :]


@given(st.binary(max_size=60))
def test_what_gunicorn_refuses_is_not_taken(noise: bytes) -> None:
    received = HEAD + noise + b"\r\n\r\n"
    try:
        next(RequestParser(Config(), iter([received]), ("192.0.2.7", 50_000)))
    except (ParseException, StopIteration):
        assert read(received) is None


def test_a_body_arrives_in_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    body = fast_path.RequestBody(b"abc", 8, server, 10)
    client.sendall(b"defghNEXT")

    assert [body.read(2), body.read(100), body.read(100)] == [b"ab", b"cdefgh", b""]
    assert server.recv(100) == b"NEXT"


# The answer on the wire


@pytest.mark.parametrize(
    ("response", "sent"),
    [
        (HttpResponse(b"abc", headers={"Content-Length": "3"}), b"Content-Length: 3\r\n\r\nabc"),
        (HttpResponse(b"abc"), b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        (
            StreamingHttpResponse([b"abc", b"", b"x" * 26]),
            b"chunked\r\n\r\n3\r\nabc\r\n1A\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n",
        ),
        (StreamingHttpResponse([]), b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (HttpResponse(b"", status=204, headers={"Content-Length": "0"}), b"Connection: keep-alive\r\n\r\n"),
        (HttpResponse(b"", status=304), b"Connection: keep-alive\r\n\r\n"),
    ],
)
def test_an_answer_is_framed(response: HttpResponse, sent: bytes, pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    del response.headers["Content-Type"]
    fast_path._send(response, server, is_last=False)
    server.shutdown(socket.SHUT_WR)

    received = b"".join(iter(lambda: client.recv(65_536), b""))
    assert received.endswith(sent)
    assert received.count(b"\r\n\r\n") == sent.count(b"\r\n\r\n")


def test_the_head_is_sent_with_the_first_piece(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    is_read = Event()

    def pieces() -> Iterator[bytes]:
        yield b"first"
        assert is_read.wait(10)
        yield b"second"

    thread = Thread(target=fast_path._send, args=(StreamingHttpResponse(pieces()), server), kwargs={"is_last": True})
    thread.start()
    received = client.recv(65_536)
    is_read.set()
    thread.join()

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n5\r\nfirst\r\n")
