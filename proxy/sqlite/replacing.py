"""Replaces the database with a copy, and keeps the old one. A kill at any point leaves one of the two intact."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from proxy.sqlite.base import Database
from proxy.sqlite.copies import copy_files, copy_pages, is_damage, publish, sync
from proxy.sqlite.lock import ServiceIsRunning


@contextmanager
def set_aside(database: Path, old: Path) -> Iterator[None]:
    """Copy the database, including its WAL, to `old`, and keep other processes out of it until the end.

    A damaged database is copied byte by byte with its journals. Raises ServiceIsRunning if others have it open.
    """
    if not database.exists():
        yield
        return
    uri = f"{database.as_uri()}?mode=rw"
    with closing(Database.connect(uri, uri=True, timeout=2, isolation_level=None)) as connection:
        try:
            # Works only without other connections, and leaves neither -wal nor -shm.
            connection.execute("PRAGMA journal_mode=DELETE")
            # A read lock keeps others from writing and from starting a WAL. With a write lock, SQLite would not copy.
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            copy_pages(connection, old)
        except Database.DatabaseError as exc:
            if "locked" in str(exc):
                raise ServiceIsRunning from None
            if not is_damage(exc):
                raise
            connection.close()
            old.unlink(missing_ok=True)
            copy_files(database, old)
        yield


def replace(database: Path, *, fresh: Path, old: Path, kept: Path) -> None:
    """Rename `old`, if it exists, to `kept`, and `fresh` to the database's name."""
    owner = (database if database.exists() else database.parent).stat()
    for suffix in ("", "-wal", "-journal"):
        if (part := Path(f"{old}{suffix}")).exists():
            publish(part, Path(f"{kept}{suffix}"))
    for suffix in ("-wal", "-shm", "-journal"):  # SQLite would apply them to the new file
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    sync(database.parent)
    with suppress(PermissionError):  # root may restore, and the service runs as another user
        os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.replace(database)
    sync(database.parent)
