"""How gunicorn serves the key manager; `manage.py serve` starts it. Choices of a deployment are in settings.py."""

import logging.config
import os
import signal
import sys
from typing import Any

from django.conf import settings
from gunicorn import glogging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "keymanager.settings")
wsgi_app = "keymanager.wsgi:application"
bind = [address.strip() for address in settings.BIND.split(",")]
workers = settings.WEB_WORKERS
worker_class = "gevent"  # a stream costs a greenlet, not a thread
worker_connections = 10_000
keepalive = 75
timeout = 60  # the arbiter's patience with a worker that shows no life; streams may last as long as they like
graceful_timeout = settings.GRACEFUL_SECONDS
limit_request_line = 8190
control_socket_disable = True


class logger_class(glogging.Logger):  # noqa: N801  # gunicorn reads this name
    """gunicorn's own words go where ours go, masked; there are no access lines, which would show ?key=TOKEN."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        logging.config.dictConfig(settings.LOGGING)

    def access(self, *_: Any) -> None:
        """Write nothing."""


def when_ready(server: Any) -> None:
    """Let Ctrl-C end things like SIGTERM does: streams in flight may finish. A second Ctrl-C does not wait."""

    def stop_gracefully(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, server.signal)
        print(f"\nStopping; streams in flight have {graceful_timeout} s. Ctrl-C again: at once.", flush=True)  # noqa: T201
        server.signal(signal.SIGTERM, frame)

    signal.signal(signal.SIGINT, stop_gracefully)


def post_worker_init(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the arbiter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def worker_exit(server: Any, worker: Any) -> None:
    """Write what the ledger still holds, such as the token counts of the last streams."""
    if module := sys.modules.get("proxy.ledger"):  # not there when the app failed to load
        module.ledger.close()
