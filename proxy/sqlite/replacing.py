"""Put a copy in the place of the database, which stays beside it. A kill at any point leaves one of the two whole."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from proxy.sqlite.base import Database
from proxy.sqlite.copies import copy_files, copy_pages, is_damage, publish, sync
from proxy.sqlite.lock import ServiceIsRunning


@contextmanager
def set_aside(database: Path, old: Path) -> Iterator[None]:
    """Copy the database, with what is in its WAL, to `old`, and keep other processes out of it meanwhile.

    A damaged one is copied byte by byte, its journals beside it. Raises ServiceIsRunning if others have it open.
    """
    if not database.exists():
        yield
        return
    uri = f"{database.as_uri()}?mode=rw"
    with closing(Database.connect(uri, uri=True, timeout=2, isolation_level=None)) as connection:
        try:
            # Works only when nobody else has a connection, and leaves neither -wal nor -shm.
            connection.execute("PRAGMA journal_mode=DELETE")
            # A read lock keeps others from writing and from a WAL; with a write lock, SQLite would not copy.
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
    """Give `old` the name `kept`, if there is one, and `fresh` that of the database."""
    owner = (database if database.exists() else database.parent).stat()
    for suffix in ("", "-wal", "-journal"):
        if (part := Path(f"{old}{suffix}")).exists():
            publish(part, Path(f"{kept}{suffix}"))
    for suffix in ("-wal", "-shm", "-journal"):  # SQLite would apply them to whatever has the name
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    sync(database.parent)
    with suppress(PermissionError):  # root restores, and the service runs as somebody else
        os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.replace(database)
    sync(database.parent)
