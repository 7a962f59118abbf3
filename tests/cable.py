"""A TCP connection to the database server that a test can cut, hold, or slow down."""

import queue
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.databases import ServiceDatabase

_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # as psycopg sends it


class Cable:
    """Forwards the connections of one node to PostgreSQL. As a context manager, it ends them all."""

    def __init__(self, database: ServiceDatabase) -> None:
        self.database = database
        self._server = urlsplit(database.url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        # How many more COMMITs reach the server while their answers do not come back.
        self.answers_to_lose = 0
        # How many more COMMITs do not even reach the server.
        self.commits_to_lose = 0
        # New connections are refused.
        self.is_cut = False
        # How long everything takes in each direction.
        self.delay_seconds = 0.0
        # What is on its way, and when it arrives.
        self._late: dict[socket.socket, queue.SimpleQueue[tuple[float, bytes]]] = {}

    @property
    def url(self) -> str:
        """The URL of the database through the cable."""
        host = f"{self._server.username}@127.0.0.1:{self._listener.getsockname()[1]}"
        return urlunsplit(self._server._replace(netloc=host))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, and refuse new ones until `mend`."""
        self.is_cut = True
        for end in list(self._open):
            _close(end)

    def mend(self) -> None:
        """Accept connections again."""
        self.is_cut = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection((str(self._server.hostname), int(self._server.port or 5432)))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                losing = threading.Event()
                threading.Thread(target=self._send, args=(client, server, losing), daemon=True).start()
                threading.Thread(target=self._return, args=(server, client, losing), daemon=True).start()

    def _send(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if data.endswith(_COMMIT):
                    if self.commits_to_lose:
                        self.commits_to_lose -= 1
                        break
                    if self.answers_to_lose:
                        self.answers_to_lose -= 1
                        losing.set()
                self._deliver(server, data)
        if not losing.is_set():
            self._end(client, server)

    def _return(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if losing.is_set():
                    break
                self._deliver(client, data)
        self._end(client, server)

    def _deliver(self, end: socket.socket, data: bytes) -> None:
        """Send now, or when the delay is over; other data may be on its way at the same time."""
        if not self.delay_seconds:
            end.sendall(data)
            return
        if end not in self._late:
            self._late[end] = queue.SimpleQueue()
            threading.Thread(target=self._deliver_late, args=(end, self._late[end]), daemon=True).start()
        self._late[end].put((time.monotonic() + self.delay_seconds, data))

    def _deliver_late(self, end: socket.socket, late: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
        with suppress(OSError):
            while True:
                due_at, data = late.get()
                time.sleep(max(0.0, due_at - time.monotonic()))
                end.sendall(data)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            self._open.discard(end)
            _close(end)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
