"""Copies of an SQLite database: made while others write, looked over, and given a name.

A copy is one file in journal mode DELETE. Until it is whole it has a name that nobody looks for, in a folder of its own
beside its place; so a failure leaves nothing behind, and a kill at most that folder.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from django.db.migrations.loader import MigrationLoader
from django.utils.translation import gettext as _

from proxy.sqlite.base import Database

_PAGES_AT_ONCE = 256  # 1 MB
_PAUSE_SECONDS = 0.002
_TABLES = {"django_migrations", "proxy_apikey", "proxy_dailyusage"}


class UnfitDatabase(Exception):
    """A file is not a database that this version can use; the text is the reason, to follow the file's name."""


class Content(NamedTuple):
    """What a copy holds."""

    keys: int
    days: int
    is_older: bool  # it lacks migrations of this version


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a new folder for files that shall stand at `path` once they are whole; it is gone afterwards."""
    with TemporaryDirectory(dir=path.parent, prefix=_prefix(path), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed left of `folder_beside(path)`."""
    for folder in path.parent.glob(f"{_prefix(path)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name}.unfinished-"


def copy_database(database: Path, copy: Path) -> None:
    """Copy the database as it is at this moment to a new file, readable by its owner alone. Others go on writing.

    Raises UnfitDatabase.
    """
    uri = f"{database.as_uri()}?mode=rw"
    with _damage_told(), closing(Database.connect(uri, uri=True, timeout=30, isolation_level=None)) as source:
        # One snapshot for the whole copy: without it, each change by another process would make it begin again.
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_master").fetchone()
        copy_pages(source, copy)


def copy_pages(source: Any, copy: Path) -> None:
    """Copy what the connection `source` sees, which has a transaction, to a new file."""
    os.close(_new(copy))
    with closing(Database.connect(copy)) as target:
        source.backup(target, pages=_PAGES_AT_ONCE, progress=lambda *_: time.sleep(_PAUSE_SECONDS))
        target.execute("PRAGMA journal_mode=DELETE")
    sync(copy)


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def copy_files(database: Path, copy: Path) -> None:
    """Copy a database that nobody uses byte by byte, whatever state it is in, with the journals beside it."""
    for suffix in ("", "-wal", "-journal"):
        source = Path(f"{database}{suffix}")
        if not suffix or source.exists():
            target = Path(f"{copy}{suffix}")
            with source.open("rb") as bytes_in, os.fdopen(_new(target), "wb") as bytes_out:
                shutil.copyfileobj(bytes_in, bytes_out, 1 << 20)
            sync(target)


def look_over(copy: Path) -> Content:
    """Return what a copy of ours holds, once what its journals hold is in it. Raises UnfitDatabase."""
    with copy.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise UnfitDatabase(_("is not an SQLite database"))
    with _damage_told(), closing(Database.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        is_whole = connection.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]
        if not is_whole or connection.execute("PRAGMA foreign_key_check").fetchone():
            raise UnfitDatabase(_("is damaged"))
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= _TABLES:
            raise UnfitDatabase(_("is not a database of this service"))
        applied = set(connection.execute("SELECT app, name FROM django_migrations"))
        keys = connection.execute("SELECT COUNT(secret) FROM proxy_apikey").fetchone()[0]
        days = connection.execute("SELECT COUNT(DISTINCT day) FROM proxy_dailyusage").fetchone()[0]
    ours = set(MigrationLoader(None).disk_migrations)
    if ("proxy", "0001_pool") not in applied:
        raise UnfitDatabase(_("is not a database of this service"))
    if {app for app, _name in ours} & {app for app, _name in applied - ours}:
        raise UnfitDatabase(_("is from a newer version of this service"))
    return Content(keys, days, is_older=not ours <= applied)


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except Database.DatabaseError as exc:
        if is_damage(exc):
            raise UnfitDatabase(_("is damaged")) from None
        if "no such column" in str(exc):
            raise UnfitDatabase(_("is not a database of this service")) from None
        raise


def is_damage(exc: Exception) -> bool:
    """Tell whether SQLite says that the file is at fault, not the way to it."""
    return any(words in str(exc) for words in ("malformed", "not a database", "unsupported file format"))


def publish(copy: Path, path: Path) -> None:
    """Give a whole file its name. Raises FileExistsError if something has that name already, even since a moment."""
    try:
        os.link(copy, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: take the name first, then put the file there
        os.close(_new(path))
        try:
            copy.replace(path)
        except BaseException:
            path.unlink()
            raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
