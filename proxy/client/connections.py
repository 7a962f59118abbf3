"""Limits on the client connections of a worker process: how many can be idle, and how slow a body can be.

No Django, no gunicorn. A connection is idle until the head of a request is complete, whether it is new or kept alive.
"""

import resource
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Open files other than connections: the database, logs, listeners, temporary bodies.
_OTHER_FILES = 100
_MOST = 10_000
# Places kept free for new connections, since closing an idle one takes a moment.
_SPARE = 16
_SHARE_OF_ADDRESS = 8  # one address can hold an eighth of the places with idle connections
_SLOWEST_BODY = 256  # bytes per second on average


def raise_file_limit() -> int:
    """Raise the limit of open files for this process and its children as far as allowed, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses its own "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST * 3 if soft == resource.RLIM_INFINITY else soft


def most_connections(files: int) -> int:
    """Return how many clients a process can serve at once. Each needs two files: one is its connection to Google."""
    return max(min((files - _OTHER_FILES) // 2, _MOST), 2 * _SPARE)


class Connections:
    """The connections of one worker process. When places run short, the connections idle for longest are closed.

    is_trusted: tells whether an address can hold any number of places, as a reverse proxy does.
    """

    def __init__(self, most: int, is_trusted: Callable[[str], bool]) -> None:
        self._most = most
        self._most_of_address = max(most // _SHARE_OF_ADDRESS, 1)
        self._is_trusted = is_trusted
        self._open: set[socket.socket] = set()
        # Idle connections and their addresses, the longest idle first. The address "" has no limit.
        self._waiting: dict[socket.socket, str] = {}
        self._waiting_of: defaultdict[str, dict[socket.socket, None]] = defaultdict(dict)

    @contextmanager
    def opened(self, sock: socket.socket) -> Iterator[None]:
        """Hold a place for a connection until it ends. An idle connection may be closed to make room."""
        if len(self._open) >= self._most - _SPARE and self._waiting:
            self._end(next(iter(self._waiting)))
        self._open.add(sock)
        try:
            yield
        finally:
            self._open.discard(sock)

    @contextmanager
    def waiting(self, sock: socket.socket, address: str) -> Iterator[None]:
        """Count a connection as idle. address: the client's, "" for a Unix socket."""
        limited = "" if not address or self._is_trusted(address) else address
        self._waiting[sock] = limited
        if limited:
            of_address = self._waiting_of[limited]
            of_address[sock] = None
            if len(of_address) > self._most_of_address:
                self._end(next(iter(of_address)))
        try:
            yield
        finally:
            self._forget(sock)

    def end_waiting(self) -> None:
        """Close all idle connections, since the service is stopping."""
        for sock in list(self._waiting):
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        """End the reading side only, so that a request that has just arrived is still answered."""
        self._forget(sock)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RD)

    def _forget(self, sock: socket.socket) -> None:
        address = self._waiting.pop(sock, "")
        if address and (of_address := self._waiting_of.get(address)) is not None:
            of_address.pop(sock, None)
            if not of_address:
                del self._waiting_of[address]


class ReplayedSocket:
    """A socket from which some bytes have been received; they are received again."""

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        self._sock = sock
        self._received = received

    def recv(self, size: int) -> bytes:
        """Return the next bytes."""
        if not self._received:
            return self._sock.recv(size)
        received, self._received = self._received[:size], self._received[size:]
        return received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class BodySocket:
    """A socket while a body is read from it. Raises TimeoutError if the client is silent for too long or too slow."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._seconds = seconds
        self._ends = time.monotonic() + seconds

    def recv(self, size: int) -> bytes:
        """Return the next bytes. Each byte gives the client more time, but a silence can last only `seconds`."""
        left = min(self._ends - time.monotonic(), self._seconds)
        received = self._received(size, left) if left > 0 else None
        if received is None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RD)  # later reads see the end of the stream
            raise TimeoutError
        self._ends += len(received) / _SLOWEST_BODY
        return received

    def _received(self, size: int, seconds: float) -> bytes | None:
        """Return the bytes that arrive within `seconds`, None if none do."""
        self._sock.settimeout(seconds)
        try:
            return self._sock.recv(size)
        except TimeoutError:
            return None
        finally:
            self._sock.settimeout(None)
