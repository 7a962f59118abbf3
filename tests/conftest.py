"""Shared fixtures: a pool in a real database file, a fake Gemini API on a real HTTP server, and the service."""

import json
import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import psycopg
import pytest
import time_machine
from concurrent_log_handler import ConcurrentRotatingFileHandler
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connection, transaction
from django.db.models import Sum
from django.test import Client, TransactionTestCase
from django.utils import timezone

from proxy import views
from proxy.conversations import Conversations
from proxy.ledger import Ledger, ledger
from proxy.ledger.claims import Claim, ClaimRequest
from proxy.ledger.clock import DatabaseClock
from proxy.ledger.rotation import Progress
from proxy.models import ApiKey, DailyUsage
from proxy.models.quotas import QUOTA_LOCK
from proxy.pool.adding import add_keys
from proxy.upstream.exchange import Upstream
from tests.databases import SERVER, url_of
from tests.fake_gemini import FakeGemini

TOKEN = "PLACEHOLDER_GEMINI_TOKEN"
FLASH = "gemini-2.5-flash"
GENERATE = f"/v1beta/models/{FLASH}:generateContent"
STREAM = f"/v1beta/models/{FLASH}:streamGenerateContent?alt=sse"
CHAT = "/v1beta/openai/chat/completions"

Pool = Callable[..., list[ApiKey]]
ReplaceUpstream = Callable[..., None]


def fake_secret(name: str) -> str:
    """Return a key in Google's format that ends in `name`: AIza, then 35 characters."""
    return "AIza" + f"{name:0>35}"


@pytest.fixture(scope="session", autouse=True)
def no_log_file() -> Iterator[None]:
    """Keep tests from writing to the log file of the service."""
    root = logging.getLogger()
    files = [handler for handler in root.handlers if isinstance(handler, ConcurrentRotatingFileHandler)]
    for handler in files:
        root.removeHandler(handler)
    yield
    for handler in files:
        root.addHandler(handler)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    tmp_path_factory: pytest.TempPathFactory, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """Put the SQLite test database into a file: an in-memory database has other locks.

    Its commits do not wait for the disk: no test needs that, and a busy disk would slow every test down.
    """
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "proxy.sqlite":
        database.setdefault("TEST", {})["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")
        database["OPTIONS"]["init_command"] = database["OPTIONS"]["init_command"].replace("=FULL", "=OFF")


@pytest.fixture(autouse=True, scope="session")
def _one_clock() -> Iterator[None]:
    """Let pages and the ledger follow the clock of this process, which tests set, instead of PostgreSQL's."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("proxy.models.nodes._server_now", timezone.now)
        monkeypatch.setattr("proxy.ledger.clock.DatabaseClock.follow", lambda *_: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_checks_of_bad_keys() -> None:
    """Keep requests from starting a thread that checks bad keys: it may run when the test's database is gone."""
    views.bad_keys_watch.next_look = math.inf


@pytest.fixture(autouse=True, scope="session")
def _empty_tables_fast() -> Iterator[None]:
    """Delete the rows of a test instead of calling `flush`, which also creates all permissions again."""

    def empty_tables(_: TransactionTestCase) -> None:
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        with transaction.atomic(), connection.cursor() as cursor:  # foreign keys are checked at the end
            for table in set(tables) - {"django_content_type", "auth_permission"}:
                cursor.execute(f'DELETE FROM "{table}"')

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield


@pytest.fixture(autouse=True)
def _one_database_only(request: pytest.FixtureRequest) -> None:
    """Skip the tests about SQLite on PostgreSQL, and those about PostgreSQL on SQLite."""
    if request.node.get_closest_marker("sqlite") and SERVER:
        pytest.skip("It is about SQLite.")
    if request.node.get_closest_marker("postgres") and not SERVER:
        pytest.skip("It is about PostgreSQL.")


@pytest.fixture
def gemini() -> Iterator[FakeGemini]:
    with FakeGemini() as server:
        yield server


@pytest.fixture
def service(
    transactional_db: None, gemini: FakeGemini, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Ledger]:
    """The relay in this process, with the fake API as its upstream and an empty queue in the ledger."""
    upstream = Upstream(gemini.url, connect_seconds=2, read_seconds=2)
    monkeypatch.setattr(views, "upstream", upstream)
    monkeypatch.setattr(views, "conversations", Conversations(tmp_path / "conversations"))
    monkeypatch.setattr(ledger._transaction, "_progress", Progress())  # a test may have stopped the clocks elsewhere
    monkeypatch.setattr("proxy.journey.PAUSES", (0.001, 0.001))
    monkeypatch.setattr("proxy.ledger.leases.BUSY", math.inf)  # no turns are leased
    yield ledger
    ledger.close()
    upstream.close()


@pytest.fixture
def replace_upstream(service: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplaceUpstream]:
    """Replace the upstream or its timeout: `replace_upstream(url, 0.3)`."""
    replaced = []

    def replace(url: str, read_seconds: float = 2) -> None:
        replaced.append(Upstream(url, connect_seconds=2, read_seconds=read_seconds))
        monkeypatch.setattr(views, "upstream", replaced[-1])

    yield replace
    for upstream in replaced:
        upstream.close()


@pytest.fixture
def pool(service: Ledger) -> Pool:
    """Add keys to the pool: `pool("one", "two", project="p1")` creates secrets that end in these names."""

    def add(*names: str, project: str = "") -> list[ApiKey]:
        secrets = [fake_secret(name) for name in names]
        add_keys(secrets, timezone.now(), project=project)
        return list(ApiKey.objects.filter(secret__in=secrets).order_by("id"))

    return add


@pytest.fixture
def client() -> Client:
    """A client that sends the token."""
    return Client(headers={"x-goog-api-key": TOKEN})


def ask(client: Client, path: str = GENERATE, body: Any = None, **kwargs: Any) -> Any:
    """Post a small request. Return the response, with all of it in `response.body`."""
    body = body or {"contents": [{"parts": [{"text": "Hello"}]}]}
    response = client.post(path, json.dumps(body), content_type="application/json", **kwargs)
    response.body = response.getvalue()  # type: ignore[attr-defined]  # streamed ones are read once
    return response


def claim_request_for(
    model_name: str = FLASH, *, tokens: int = 10, tried: Iterable[int] = (), wait_seconds: float = 0
) -> ClaimRequest:
    """Return a claim request that waits up to `patience_seconds` for a rate-limited key."""
    until = time.monotonic() + wait_seconds
    return ClaimRequest(model_name, tokens, frozenset(tried), gives_up_at=until, deadline=until)


def claim_of(ledger: Ledger, model_name: str = FLASH, **kwargs: Any) -> Claim:
    """Claim a key; the arguments are those of `claim_request_for`."""
    claim, _ = ledger.claim(claim_request_for(model_name, **kwargs))
    return claim


class Clocks:
    """The wall clock and the monotonic clock, both set by a test."""

    def __init__(self, wall: time_machine.Traveller) -> None:
        self._wall = wall
        self.elapsed_ns = 1_000_000 * 10**9

    def go_on(self, seconds: float) -> None:
        """Advance both clocks."""
        self._wall.shift(seconds)
        self.elapsed_ns += int(seconds * 10**9)

    def set_wall(self, seconds: float) -> None:
        """Change only the wall clock, as NTP or an administrator may."""
        self._wall.shift(seconds)


@contextmanager
def stopped_clocks(moment: datetime) -> Iterator[Clocks]:
    """Stop the clocks of the ledger at `moment`."""
    with time_machine.travel(moment, tick=False) as wall, pytest.MonkeyPatch.context() as monkeypatch:
        clocks = Clocks(wall)
        monkeypatch.setattr("proxy.ledger.clock.elapsed_ns", lambda: clocks.elapsed_ns)
        monkeypatch.setattr(ledger._transaction, "clock", DatabaseClock())
        yield clocks


@pytest.fixture
def clocks() -> Iterator[Clocks]:
    """Stop the clocks of the ledger at noon, Pacific, of 24 November 2026."""
    with stopped_clocks(datetime(2026, 11, 24, 20, tzinfo=UTC)) as clocks:
        yield clocks


def nobodys_port() -> int:
    """Return a port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def error_in(response: Any) -> dict[str, Any]:
    """Return the error of a response in Gemini's format."""
    assert response.headers["Content-Type"].startswith("application/json")
    content: dict[str, Any] = json.loads(response.body)["error"]
    return content


def answers_by_secret() -> dict[str, int]:
    """Return how many answers are booked for each key, over all models and days, without zeros."""
    ledger.close()
    counts: dict[str, int] = {}
    for secret, answers in DailyUsage.objects.exclude(answers=0).values_list("key__secret", "answers"):
        counts[str(secret)] = counts.get(str(secret), 0) + answers
    return counts


def usage_of_today() -> dict[str, int]:
    """Return the sums of all counters that are not 0, once everything is written."""
    ledger.close()
    names = [
        field.name for field in DailyUsage._meta.concrete_fields if field.get_internal_type().startswith("Positive")
    ]
    sums = DailyUsage.objects.aggregate(**{f"sum_{name}": Sum(name) for name in names})
    return {name: number for name in names if (number := sums[f"sum_{name}"])}


def is_soon(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    """Poll until `condition` is true. Tell whether it is in time. For what cannot notify, such as a database row."""
    never = threading.Event()
    for _ in range(int(seconds * 200)):
        if condition():
            return True
        never.wait(0.005)
    return bool(condition())


def other_connection() -> Any:
    """Return a second connection to the database, which may be used from another thread.

    On SQLite, it uses the same library: two libraries in one process would release each other's locks.
    """
    name = connection.settings_dict["NAME"]
    if SERVER:
        return psycopg.connect(url_of(name), autocommit=True)
    from proxy.sqlite.base import Database  # noqa: PLC0415  # importing it chooses the library

    return Database.connect(name, isolation_level=None, timeout=5, check_same_thread=False)


@contextmanager
def locked_database(mode: str = "IMMEDIATE") -> Iterator[Callable[[], None]]:
    """Hold the write lock, as another process would. Yield a function that releases it before the end.

    mode: that of BEGIN on SQLite. On PostgreSQL, the lock is the ledger's.
    """
    other = other_connection()
    other.execute(f"SELECT pg_advisory_lock({QUOTA_LOCK})" if SERVER else f"BEGIN {mode}")

    def let_go() -> None:
        if SERVER:
            other.execute("SELECT pg_advisory_unlock_all()")
        elif other.in_transaction:
            other.rollback()

    try:
        yield let_go
    finally:
        let_go()
        other.close()


@pytest.fixture
def impatient(service: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Let the ledger wait 0.2 s for a lock, and not try again for those who wait."""
    service.close()
    options = connection.settings_dict["OPTIONS"]
    if SERVER:
        monkeypatch.setitem(options, "options", f"{options['options']} -c lock_timeout=200ms")
    else:
        monkeypatch.setitem(options, "timeout", 0.2)
    monkeypatch.setattr(service._writer, "database_seconds", 0)
    return service


class RawUpstream:
    """A server that sends exactly the bytes of a script: `script(b"HTTP/1.1 200 OK…")`, one script per request.

    A script is a list of pieces. Each piece after the first waits for a call of `go_on()`. At the end, the connection
    is closed, unless the last piece is KEEP. requests: the head and body of each, or only the head if `reads_bodies`
    is off.
    """

    KEEP = b"\0keep"

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.reads_bodies = True
        self._scripts: deque[list[bytes]] = deque()
        self._gate = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def script(self, *pieces: bytes) -> None:
        self._scripts.append(list(pieces))

    def go_on(self) -> None:
        self._gate.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for _ in range(1000):
            self._gate.release()
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(self._wrap(sock),), daemon=True).start()

    def _wrap(self, sock: socket.socket) -> socket.socket:
        return sock

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock, sock.makefile("rb") as file:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while request := self._read(file):
                self.requests.append(request)
                pieces = self._scripts.popleft() if self._scripts else []
                is_kept = pieces[-1:] == [self.KEEP]
                for number, piece in enumerate(pieces[:-1] if is_kept else pieces):
                    if number:
                        self._gate.acquire()
                    sock.sendall(piece)
                if not is_kept:
                    return

    def _read(self, file: IO[bytes]) -> bytes:
        lines: list[bytes] = []
        while (line := file.readline()).strip():
            lines.append(line)
        head = b"".join(lines)
        length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
        return head + (file.read(length) if self.reads_bodies else b"")


@pytest.fixture
def raw() -> Iterator[RawUpstream]:
    with RawUpstream() as server:
        yield server


class _Handler(WSGIRequestHandler):
    """Imitates gunicorn where it differs from runserver: RAW_URI, and decoded chunked bodies."""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["RAW_URI"] = self.path
        environ["tests.rfile"] = self.rfile
        return environ


class _Unchunked:
    """A chunked body, read like a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = b""
        self._is_over = False

    def read(self, size: int) -> bytes:
        while len(self._left) < size and not self._is_over:
            length = int(self._file.readline().partition(b";")[0], 16)
            self._left += self._file.read(length)
            self._file.readline()
            self._is_over = not length
        content, self._left = self._left[:size], self._left[size:]
        return content

    def readline(self) -> bytes:
        """Exist for Django, which looks for it but never calls it here."""
        raise NotImplementedError


def _as_gunicorn(application: Any, environ: dict[str, Any], start_response: Any) -> Any:
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", ""):
        environ |= {"wsgi.input": _Unchunked(environ["tests.rfile"]), "wsgi.input_terminated": True}
    return application(environ, start_response)


@contextmanager
def served(handler: type[WSGIRequestHandler]) -> Iterator[int]:
    """Serve the product on a port, with runserver's classes, in threads of this process."""
    server = ThreadedWSGIServer(("127.0.0.1", 0), handler)
    application = WSGIHandler()
    server.set_app(partial(_as_gunicorn, application) if handler is _Handler else application)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def front(service: Ledger) -> Iterator[int]:
    """The port of the service behind a real HTTP server that accepts chunked bodies, like gunicorn."""
    with served(_Handler) as port:
        yield port


@pytest.fixture
def runserver(service: Ledger) -> Iterator[int]:
    """The port of the service, served like `manage.py runserver`."""
    with served(WSGIRequestHandler) as port:
        yield port
