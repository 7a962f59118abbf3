"""Silent and slow connections: how many may wait, which are closed, and that others are still served."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from proxy.client.connections import BodySocket, Connections, most_connections, raise_file_limit
from tests.fake_gemini import FakeGemini
from tests.service import read_event, running


@pytest.mark.parametrize(("files", "most"), [(50, 32), (1024, 462), (20_000, 9_950), (1_048_576, 10_000)])
def test_places_leave_files_for_the_way_to_google(files: int, most: int) -> None:
    assert most_connections(files) == most


# Who has to go


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def wait(connections: Connections, stack: ExitStack, address: str) -> socket.socket:
    """Return the client's end of a new connection on which no request has arrived."""
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    stack.enter_context(connections.opened(ours))
    stack.enter_context(connections.waiting(ours, address))
    ours.setblocking(False)
    _ENDS[theirs] = ours
    return theirs


_ENDS: dict[socket.socket, socket.socket] = {}


def is_ended(theirs: socket.socket) -> bool:
    try:
        return _ENDS[theirs].recv(1) == b""
    except BlockingIOError:
        return False


def test_who_waited_longest_makes_room(stack: ExitStack) -> None:
    connections = Connections(40, lambda _address: True)

    clients = [wait(connections, stack, "192.0.2.1") for _ in range(30)]

    assert [is_ended(client) for client in clients] == [True] * 6 + [False] * 24


def test_an_address_holds_its_share_only(stack: ExitStack) -> None:
    connections = Connections(80, lambda address: address == "127.0.0.1")

    greedy = [wait(connections, stack, "192.0.2.1") for _ in range(12)]
    others = [wait(connections, stack, address) for address in ("192.0.2.2", "127.0.0.1", "") for _ in range(10)]

    assert [is_ended(client) for client in greedy] == [True] * 2 + [False] * 10
    assert not any(map(is_ended, others))


def test_a_request_in_flight_is_never_ended(stack: ExitStack) -> None:
    connections = Connections(20, lambda _address: True)
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    stack.enter_context(connections.opened(ours))
    with connections.waiting(ours, "192.0.2.1"):
        pass  # its request has come
    ours.setblocking(False)
    _ENDS[theirs] = ours

    clients = [wait(connections, stack, "192.0.2.1") for _ in range(10)]
    connections.end_waiting()

    assert not is_ended(theirs)
    assert all(map(is_ended, clients))


def test_data_before_the_end_can_still_be_read(stack: ExitStack) -> None:
    connections = Connections(20, lambda _address: True)
    client = wait(connections, stack, "192.0.2.1")
    client.sendall(b"GET")

    connections.end_waiting()

    assert _ENDS[client].recv(10) == b"GET"
    assert is_ended(client)


# Bodies


def test_a_body_that_progresses_gets_more_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        body = BodySocket(ours, 0.3)
        began = time.monotonic()
        while time.monotonic() < began + 0.6:  # twice as long as silence may be
            theirs.sendall(b"x" * 100)
            assert body.recv(1000)

        with pytest.raises(TimeoutError):
            body.recv(1)

        assert ours.recv(1) == b""  # whoever reads on sees the end


def test_a_body_of_single_bytes_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        body = BodySocket(ours, 0.2)
        theirs.sendall(b"x" * 1000)

        assert read_slowly(body) < 1000


def read_slowly(body: BodySocket) -> int:
    """Read a byte every 20 ms until no more arrive in time. Return how many there were."""
    for count in range(1000):
        try:
            body.recv(1)
        except TimeoutError:
            return count
        time.sleep(0.02)
    return 1000


# Real processes


def test_thousands_of_silent_connections_do_not_block_others(tmp_path: Path, gemini: FakeGemini) -> None:
    raise_file_limit()
    gemini.hold = Event()
    with running(tmp_path, gemini, open_files=1024, WEB_WORKERS="1") as service, ExitStack() as opened:
        stream = opened.enter_context(service.stream())
        read_event(stream)
        for number in range(2300):
            client = opened.enter_context(service.connect())
            if number % 2:
                client.sendall(b"POST /v1beta/models HTTP/1.1\r\nHost: x\r\nX-Half:")

        answers = [service.ask().status_code for _ in range(5)]
        gemini.hold.set()

        assert answers == [200] * 5
        assert stream.read().count(b"data: ") == 2  # in flight all the time


def answer_on(connection: socket.socket, request: bytes) -> bytes:
    """Send a request, and return its answer, whose body is JSON."""
    connection.sendall(request)
    received = b""
    while not received.endswith(b"}\n"):
        piece = connection.recv(65_536)
        if not piece:
            break
        received += piece
    return received


def test_half_a_head_and_a_silent_body_time_out_and_a_slow_body_does_not(tmp_path: Path, gemini: FakeGemini) -> None:
    with running(tmp_path, gemini, CLIENT_TIMEOUT_SECONDS="1") as service, ExitStack() as opened:
        silent, half, body, ordinary, slow = (opened.enter_context(service.connect()) for _ in range(5))
        half.sendall(b"GET / HTTP/1.1\r\nHost")
        body.sendall(service.head("Content-Length: 100") + b"{")
        ordinary.sendall(service.head("Content-Length: 100", "Not: on", "Not: the fast path") + b"{")
        slow.sendall(service.head("Content-Length: 3000", "Connection: close") + b"{")
        kept = [opened.enter_context(service.connect()) for _ in range(2)]
        requests = [service.head(), service.head("Not: on", "Not: the fast path")]
        for connection, request in zip(kept, requests, strict=True):
            assert answer_on(connection, request).startswith(b"HTTP/1.1 200 ")
        for _ in range(10):  # three times as long as silence may be
            time.sleep(0.3)
            slow.sendall(b" " * 299)
        slow.sendall(b" " * 8 + b"}")

        for connection, request in zip(kept, requests, strict=True):
            assert answer_on(connection, request).startswith(b"HTTP/1.1 200 ")
        assert silent.recv(100) == b""
        assert half.recv(100) == b""
        assert body.recv(100).startswith(b"HTTP/1.1 408 ")
        assert ordinary.recv(100).startswith(b"HTTP/1.1 408 ")
        assert slow.recv(100).startswith(b"HTTP/1.1 200 ")
