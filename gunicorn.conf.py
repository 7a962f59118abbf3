"""How gunicorn serves the key manager; `manage.py serve` starts it. Choices of a deployment are in settings.py."""

import logging.config
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from gevent import Timeout, getcurrent
from gunicorn import glogging
from gunicorn.workers.ggevent import GeventWorker

from proxy.client.address import is_in, read_address
from proxy.client.connections import BodySocket, Connections, most_connections, raise_file_limit
from proxy.sqlite.lock import hold_while_serving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "keymanager.settings")
try:
    hold_while_serving()  # here, so that the arbiter holds it too, and none of its workers ever waits for it
    bind = settings.BIND.split(",")
except ImproperlyConfigured as exc:
    sys.exit(str(exc))
wsgi_app = "keymanager.wsgi:application"
workers = settings.WEB_WORKERS


@lru_cache(maxsize=4096)
def may_hold_many(text: str) -> bool:
    """Return whether an address may hold any number of connections: this machine, and reverse proxies."""
    address = read_address(text)
    return address is None or address.is_loopback or is_in(address, settings.TRUSTED_PROXIES)


class worker_class(GeventWorker):  # type: ignore[misc]  # noqa: N801  # gunicorn has no types, and reads this name
    """A stream costs a greenlet, not a thread. When it ends, connections that wait for their next request end too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = Connections(worker_connections, may_hold_many)
        self._clients: dict[Any, tuple[Any, str]] = {}  # socket and address, by greenlet
        self._known: set[Any] = set()  # sockets on which a request has come

    def init_signals(self) -> None:
        """Leave Ctrl-C, which a terminal sends to every process, to the arbiter: from the first moment on."""
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self._clients[getcurrent()] = client, addr[0] if isinstance(addr, tuple) else ""
        try:
            with self._connections.opened(client):
                super().handle(listener, client, addr)
        finally:
            self._known.discard(client)
            del self._clients[getcurrent()]

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Wait for the head of a request: of the first one not for long, since that was what the client came for."""
        client, address = self._clients[getcurrent()]
        seconds = keepalive if client in self._known else settings.CLIENT_TIMEOUT_SECONDS
        with self._connections.waiting(client, address), Timeout(seconds, False):
            yield

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        self._known.add(sock)
        req.unreader.sock = BodySocket(sock, settings.CLIENT_TIMEOUT_SECONDS)
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            req.unreader.sock = sock

    def notify(self) -> None:
        """Called every second, also while the last requests are awaited."""
        super().notify()
        if not self.alive:
            self._connections.end_waiting()


# Pages, streams, whatever comes: each connection needs a file or two.
worker_connections = most_connections(raise_file_limit())
keepalive = 75
timeout = 60  # the arbiter's patience with a worker that shows no life; streams may last as long as they like
graceful_timeout = settings.GRACEFUL_SECONDS + 4  # the arbiter's; workers end their requests themselves, see below
limit_request_line = 8190
# Whoever terminates TLS in front may say so, from any address. All that follows is the scheme, which counts for the
# forms of the admin only; looking the address up took 3 % of a request's time.
forwarded_allow_ips = "*"
forwarder_headers = ""
control_socket_disable = True


class logger_class(glogging.Logger):  # type: ignore[misc]  # noqa: N801  # the same
    """gunicorn's own words go where ours go, masked; there are no access lines, which would show ?key=TOKEN."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        # Its warnings are requests that make no sense: anybody could fill the log with them.
        self.error_log.setLevel(logging.WARNING if settings.LOG_LEVEL == "DEBUG" else logging.ERROR)
        logging.config.dictConfig(settings.LOGGING)

    def access(self, *_: Any) -> None:
        """Write nothing."""


def on_starting(server: Any) -> None:
    """Check what `manage.py serve` has checked, if it was not `serve` who started us."""
    if "SETTINGS_ARE_CHECKED=1" in server.cfg.raw_env:
        return
    # In a process of its own: the checks import what must not be there before gevent patches.
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "check", "--database", "default"]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603
        sys.exit(1)


def when_ready(server: Any) -> None:
    """Let Ctrl-C end things like SIGTERM does: streams in flight may finish. A second Ctrl-C does not wait."""
    if "django.db" in sys.modules:
        raise RuntimeError("Something in settings.py imports django.db, which must not happen before gevent patches.")

    def stop_gracefully(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, server.signal)
        seconds = settings.GRACEFUL_SECONDS
        print(f"\nStopping; streams in flight have {seconds} s. Ctrl-C again: at once.", flush=True)  # noqa: T201
        server.signal(signal.SIGTERM, frame)

    signal.signal(signal.SIGINT, stop_gracefully)

    def begin_as_worker() -> None:
        # The arbiter's handlers, which only write signals down, are inherited: a worker that is told to stop before
        # it has its own would never know.
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
    """Let a worker end its requests itself, and the arbiter wait a little longer than that."""
    worker.cfg.set("graceful_timeout", settings.GRACEFUL_SECONDS)


def worker_exit(server: Any, worker: Any) -> None:
    """Write what the ledger still holds, such as the token counts of the last streams."""
    if module := sys.modules.get("proxy.ledger"):  # not there when the app failed to load
        module.ledger.close()
