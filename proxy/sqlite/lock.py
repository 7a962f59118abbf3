"""The lock that keeps a restore and the service apart.

It is a file next to the database, locked with flock: shared while serving, exclusive for a restore. Forked workers
inherit the lock, and the kernel releases it when the last process ends, however it ends. Nothing here imports
django.db, because gunicorn.conf.py takes the lock before gevent's monkey-patching.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_held: list[int] = []


class ServiceIsRunning(Exception):
    """The database is in use by the service or by another restore."""


def database_file() -> Path | None:
    """Return the path of the SQLite database, which may not exist yet; None for another engine."""
    database = settings.DATABASES["default"]
    is_file = database["ENGINE"] == "proxy.sqlite" and database["NAME"] != ":memory:"
    return Path(database["NAME"]).resolve() if is_file else None


def hold_while_serving(*, over_exec: bool = False) -> None:
    """Hold the shared lock until this process ends, and across an exec with `over_exec`. A second call does nothing.

    Raises ImproperlyConfigured during a restore. If the lock cannot be created, the service runs without it.
    """
    path = database_file()
    if path is None or _held:
        return
    with suppress(OSError):
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ImproperlyConfigured("The database is being restored. Start the service after that.") from None
        os.set_inheritable(descriptor, over_exec)
        _held.append(descriptor)


@contextmanager
def nobody_serving(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of the database at `path`. Raises ServiceIsRunning, OSError."""
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceIsRunning from None
        yield
    finally:
        os.close(descriptor)


def _open(database: Path) -> int:
    descriptor = os.open(f"{database}.lock", os.O_RDONLY | os.O_CREAT, 0o644)
    with suppress(PermissionError):
        os.fchmod(descriptor, 0o644)  # root may have created it, and the service runs as another user
    return descriptor
