"""Connections of clients to a worker process: how many may wait for their next request, and how slow a body may be.

No Django, no gunicorn. A connection waits until the head of a request is there: it is new and silent, or half a head
has come, or it was kept for the next request.
"""

import resource
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Files that are no connections: the database, logs, listeners, temporary bodies.
_OTHER_FILES = 100
_MOST = 10_000
# So many places are kept free for those that come next; closing a connection takes a moment.
_SPARE = 16
_SHARE_OF_ADDRESS = 8  # one address may hold an eighth of the places, waiting
_SLOWEST_BODY = 256  # bytes a second, on the whole


def raise_file_limit() -> int:
    """Let this process, and those it starts, open as many files as the system allows it. Returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses what it calls unlimited
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST * 3 if soft == resource.RLIM_INFINITY else soft


def most_connections(files: int) -> int:
    """Return how many clients a process serves at once: each needs a file, and another one for the way to Google."""
    return max(min((files - _OTHER_FILES) // 2, _MOST), 2 * _SPARE)


class Connections:
    """The connections of one worker process. When places run short, those that have waited longest are closed.

    is_trusted: whether an address may hold any number, as a reverse proxy does.
    """

    def __init__(self, most: int, is_trusted: Callable[[str], bool]) -> None:
        self._most = most
        self._most_of_address = max(most // _SHARE_OF_ADDRESS, 1)
        self._is_trusted = is_trusted
        self._open: set[socket.socket] = set()
        # In the order in which they began to wait; an address of "" is not limited.
        self._waiting: dict[socket.socket, str] = {}
        self._waiting_of: defaultdict[str, dict[socket.socket, None]] = defaultdict(dict)

    @contextmanager
    def opened(self, sock: socket.socket) -> Iterator[None]:
        """Hold a place for a connection until it ends; others may have to make room for it."""
        if len(self._open) >= self._most - _SPARE and self._waiting:
            self._end(next(iter(self._waiting)))
        self._open.add(sock)
        try:
            yield
        finally:
            self._open.discard(sock)

    @contextmanager
    def waiting(self, sock: socket.socket, address: str) -> Iterator[None]:
        """Count a connection as one that waits for a request; `address` is the client's, "" for a Unix socket."""
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
        """End all connections that wait: nobody will answer on them any more."""
        for sock in list(self._waiting):
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        """Let the greenlet that reads see the end of the connection; a request that has just come is still answered."""
        self._forget(sock)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RD)

    def _forget(self, sock: socket.socket) -> None:
        address = self._waiting.pop(sock, "")
        if address and (of_address := self._waiting_of.get(address)) is not None:
            of_address.pop(sock, None)
            if not of_address:
                del self._waiting_of[address]


class BodySocket:
    """A socket while a body is read from it. TimeoutError ends it when the client is silent, or slow on the whole."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._seconds = seconds
        self._ends = time.monotonic() + seconds

    def recv(self, size: int) -> bytes:
        """Return what came. Each byte gives the client more time; no silence may be longer than `seconds`."""
        left = min(self._ends - time.monotonic(), self._seconds)
        received = self._received(size, left) if left > 0 else None
        if received is None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RD)  # whoever reads on sees the end
            raise TimeoutError
        self._ends += len(received) / _SLOWEST_BODY
        return received

    def _received(self, size: int, seconds: float) -> bytes | None:
        """Return what came within so many seconds, None when nothing did."""
        self._sock.settimeout(seconds)
        try:
            return self._sock.recv(size)
        except TimeoutError:
            return None
        finally:
            self._sock.settimeout(None)
