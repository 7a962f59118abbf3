"""HTTP over a real socket pair: however a body is framed and split, it arrives complete."""

import itertools
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.gemini.credentials import Headers
from proxy.upstream.http1 import BrokenAnswer, Http1Connection


def answer_to(sent: bytes, cuts: list[int], *, is_head_request: bool = False) -> tuple[int, Headers, bytes, bool]:
    """Let a peer send `sent`, split at `cuts`. Return status, headers, body, and whether the connection can be kept."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)

    def send() -> None:
        edges = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})
        for start, end in itertools.pairwise(edges):
            theirs.sendall(sent[start:end])
        theirs.shutdown(socket.SHUT_WR)

    peer = threading.Thread(target=send)
    peer.start()
    connection = Http1Connection(ours)
    try:
        status, headers = connection.read_head(is_head_request=is_head_request)
        body = b"".join(connection.pieces())
        return status, headers, body, connection.is_reusable
    finally:
        peer.join()
        connection.close()
        theirs.close()


def chunked(content: bytes, sizes: list[int]) -> bytes:
    """Return `content` in chunks of about `sizes` bytes."""
    framed, rest = b"", content
    for size in [*sizes, len(content)]:
        if piece := rest[:size]:
            framed += f"{len(piece):X};ext=1\r\n".encode() + piece + b"\r\n"
        rest = rest[size:]
    return framed + b"0\r\nX-Trailer: yes\r\n\r\n"


sizes = st.lists(st.integers(1, 50), max_size=20)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=600), sizes=sizes, cuts=cuts)
def test_a_chunked_body_arrives_complete_however_it_is_split(content: bytes, sizes: list[int], cuts: list[int]) -> None:
    sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-One: 1\r\n\r\n" + chunked(content, sizes)

    status, headers, body, may_stay = answer_to(sent, cuts)

    assert (status, body, may_stay) == (200, content, True)
    assert ("X-One", "1") in headers


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=600), cuts=cuts)
def test_a_body_of_known_length_arrives_complete_however_it_is_split(content: bytes, cuts: list[int]) -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content

    assert answer_to(sent, cuts)[2:] == (content, True)


def test_a_body_without_length_ends_with_the_connection() -> None:
    assert answer_to(b"HTTP/1.1 200 OK\r\n\r\nhello", [20, 21])[2:] == (b"hello", False)


def test_interim_answers_are_passed_over() -> None:
    sent = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"

    assert answer_to(sent, []) == (204, [], b"", True)


def test_the_answer_to_head_has_a_length_and_no_body() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"

    assert answer_to(sent, [], is_head_request=True)[2:] == (b"", True)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "bytes too many", "both framings"],
)
def test_a_connection_that_may_be_out_of_step_is_not_used_again(head: bytes) -> None:
    assert answer_to(head, [])[2:] == (b"ok", False)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"a" * 10_000,
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
    ],
)
def test_an_incomplete_answer_is_an_error_and_never_a_short_body(sent: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        answer_to(sent, [])


@settings(max_examples=100, deadline=None)
@given(rubbish=st.binary(max_size=300))
def test_rubbish_ends_in_an_error_of_ours(rubbish: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        answer_to(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx" + rubbish, [])


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_piece_arrives_before_the_rest_of_the_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    connection = Http1Connection(ours)
    connection.read_head(is_head_request=False)
    pieces = connection.pieces()

    assert next(pieces) == b"first"

    theirs.sendall(b"6\r\nsecond\r\n5\r\nthird\r\n0\r\n\r\n")
    assert list(pieces) == [b"secondthird"]
    assert connection.is_reusable
