"""The lock that tells a restore whether the service runs.

A file beside the database, locked with flock: shared by all who serve, exclusive for a restore. Forked workers inherit
the lock, and the kernel lets go when the last process that holds it ends, however it ends. Nothing here imports
django.db: gunicorn.conf.py takes the lock before gevent patches.
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
    """Somebody serves from the database, or restores it."""


def database_file() -> Path | None:
    """Return where the SQLite database is or will be; None on another engine."""
    database = settings.DATABASES["default"]
    is_file = database["ENGINE"] == "proxy.sqlite" and database["NAME"] != ":memory:"
    return Path(database["NAME"]).resolve() if is_file else None


def hold_while_serving(*, over_exec: bool = False) -> None:
    """Hold the shared lock until this process ends, and over an exec if asked to. A second call does nothing.

    Raises ImproperlyConfigured while a restore is under way. Where no lock can be made, the service runs without.
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
            raise ImproperlyConfigured("The database is being restored; start the service after that.") from None
        os.set_inheritable(descriptor, over_exec)
        _held.append(descriptor)


@contextmanager
def nobody_serving(path: Path) -> Iterator[None]:
    """Keep everybody from serving the database at `path`. Raises ServiceIsRunning; OSError if there can be no lock."""
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
        os.fchmod(descriptor, 0o644)  # root may have made it, and the service runs as somebody else; it is empty
    return descriptor
