"""The configuration of gunicorn, which `manage.py serve` starts. Settings of a deployment are in settings.py."""

import logging.config
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from gevent import Timeout, getcurrent
from gunicorn import glogging
from gunicorn.workers.ggevent import GeventWorker

from proxy.client import draining
from proxy.client.address import is_in, read_address
from proxy.client.connections import BodySocket, Connections, ReplayedSocket, most_connections, raise_file_limit
from proxy.sqlite.lock import hold_while_serving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "keymanager.settings")
try:
    hold_while_serving()  # here, so that the arbiter holds the lock and its workers inherit it
    bind = settings.BIND.split(",")
except ImproperlyConfigured as exc:
    sys.exit(str(exc))
wsgi_app = "keymanager.wsgi:application"
workers = settings.WEB_WORKERS


@lru_cache(maxsize=4096)
def may_hold_many(text: str) -> bool:
    """Tell whether an address can hold any number of connections, as this machine and reverse proxies do."""
    address = read_address(text)
    return address is None or address.is_loopback or is_in(address, settings.TRUSTED_PROXIES)


class worker_class(GeventWorker):  # type: ignore[misc]  # noqa: N801  # gunicorn has no types, and reads this name
    """A gevent worker that limits idle connections and slow bodies, and closes idle connections when it stops.

    Requests to the relay take the fast path, `proxy/fast_path.py`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = Connections(worker_connections, may_hold_many)
        # By greenlet: the client's socket and address, and how many seconds it can take to send the head of a request.
        self._clients: dict[Any, tuple[Any, str, float]] = {}

    def init_signals(self) -> None:
        """Ignore Ctrl-C, which a terminal sends to every process. The arbiter handles it."""
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        from proxy import fast_path  # noqa: PLC0415  # not before gevent's monkey-patching

        self._serve_fast = fast_path.serve

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        address = addr[0] if isinstance(addr, tuple) else ""
        self._clients[getcurrent()] = client, address, settings.CLIENT_TIMEOUT_SECONDS
        client.setblocking(True)
        try:
            with self._connections.opened(client), closing(client), suppress(OSError):
                rest = self._serve_fast(
                    self._receive(client),
                    client,
                    address,
                    receive_next=lambda: self._receive_next(client),
                    silence_seconds=settings.CLIENT_TIMEOUT_SECONDS,
                    is_stopping=lambda: not self.alive,
                )
                if rest:
                    super().handle(listener, ReplayedSocket(client, rest), addr)
        finally:
            del self._clients[getcurrent()]

    def _receive(self, client: Any) -> bytes:
        """Return what the client sends; b"" when it has closed the connection or has been idle for too long."""
        with self.timeout_ctx():
            return bytes(client.recv(65_536))
        return b""

    def _receive_next(self, client: Any) -> bytes:
        self._keep_alive()
        return self._receive(client)

    def _keep_alive(self) -> None:
        """Give the client of this greenlet, which has sent a request, more time for the next one."""
        client, address, _ = self._clients[getcurrent()]
        self._clients[getcurrent()] = client, address, keepalive

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Limit the wait for the head of a request. It is shorter for the first request of a connection."""
        client, address, seconds = self._clients[getcurrent()]
        with self._connections.waiting(client, address), Timeout(seconds, False):
            yield

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        self._keep_alive()
        req.unreader.sock = BodySocket(sock, settings.CLIENT_TIMEOUT_SECONDS)
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            req.unreader.sock = sock

    def notify(self) -> None:
        """Close idle connections once the worker stops. gunicorn calls this every second."""
        super().notify()
        if not self.alive:
            self._connections.end_waiting()
            if live := sys.modules.get("proxy.live.session"):
                live.end_all()


worker_connections = most_connections(raise_file_limit())
keepalive = 75
timeout = 60  # seconds until the arbiter replaces a worker that hangs; streams can last longer
graceful_timeout = settings.GRACEFUL_SECONDS + 4  # of the arbiter; see `post_worker_init` for the workers'
limit_request_line = 8190
# X-Forwarded-Proto is accepted from any address. It sets the scheme, which matters only for the forms of the admin, and
# checking the address took 3 % of a request's time.
forwarded_allow_ips = "*"
forwarder_headers = ""
control_socket_disable = True


class logger_class(glogging.Logger):  # type: ignore[misc]  # noqa: N801  # the same
    """Sends gunicorn's messages to our log, masked. There is no access log, which would contain ?key=TOKEN."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        # Its warnings are about malformed requests, with which anybody could fill the log.
        self.error_log.setLevel(logging.WARNING if settings.LOG_LEVEL == "DEBUG" else logging.ERROR)
        logging.config.dictConfig(settings.LOGGING)

    def access(self, *_: Any) -> None:
        """Write nothing."""


def on_starting(server: Any) -> None:
    """Run the system checks, unless `manage.py serve` has run them."""
    if "SETTINGS_ARE_CHECKED=1" in server.cfg.raw_env:
        return
    # In another process, since the checks import modules that must not be imported before gevent's monkey-patching.
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "check", "--database", "default"]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603
        sys.exit(1)


def when_ready(server: Any) -> None:
    """Make Ctrl-C stop gracefully, as SIGTERM does. A second Ctrl-C stops at once."""
    if "django.db" in sys.modules:
        raise RuntimeError("settings.py imports django.db, which must not happen before gevent's monkey-patching.")

    def stop_gracefully(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, server.signal)
        seconds = settings.GRACEFUL_SECONDS
        print(f"\nStopping. Open streams have {seconds} s to finish. Press Ctrl-C again to stop now.", flush=True)  # noqa: T201
        server.signal(signal.SIGTERM, frame)

    signal.signal(signal.SIGINT, stop_gracefully)

    def drain(signum: int, frame: object) -> None:
        """Stop when the drain is over, or at the second SIGTERM."""
        if draining.is_draining():
            server.signal(signal.SIGTERM, frame)
            return
        draining.begin()
        signal.signal(signal.SIGALRM, lambda *_: server.signal(signal.SIGTERM, frame))
        signal.setitimer(signal.ITIMER_REAL, settings.DRAIN_SECONDS)

    if settings.DRAIN_SECONDS:
        signal.signal(signal.SIGTERM, drain)

    def begin_as_worker() -> None:
        # A worker inherits the arbiter's handlers, which only record signals. Until it has its own, it would miss
        # signals to stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS),
        after_in_child=begin_as_worker,
    )


_ENDS = {signal.SIGINT, signal.SIGTERM}


def post_worker_init(worker: Any) -> None:
    """Give workers a shorter timeout than the arbiter's, so that they end their requests themselves."""
    worker.cfg.set("graceful_timeout", settings.GRACEFUL_SECONDS)


def worker_exit(server: Any, worker: Any) -> None:
    """Write what is left in the ledger's queue, such as the token counts of the last streams."""
    if module := sys.modules.get("proxy.ledger"):  # missing if the app failed to load
        module.ledger.close()
