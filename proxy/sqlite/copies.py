"""Copies an SQLite database while others write to it, verifies the copy, and gives it its name.

A copy is one file in journal mode DELETE. Until it is complete, it is in a hidden folder of its own next to its final
place, so a failure leaves nothing behind, and a kill leaves at most that folder.
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
    """A file is not a database that this version can use. The text is the reason, for use after the file's name."""


class Content(NamedTuple):
    """The content of a copy."""

    keys: int
    # Of usage.
    days: int
    # It lacks migrations of this version.
    is_older: bool


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder for files that will be moved to `path` once they are complete."""
    with TemporaryDirectory(dir=path.parent, prefix=_prefix(path), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_leftovers(path: Path) -> None:
    """Remove the folders that killed processes left behind in `folder_beside(path)`."""
    for folder in path.parent.glob(f"{_prefix(path)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name}.unfinished-"


def copy_database(database: Path, copy: Path) -> None:
    """Copy a snapshot of the database to a new file, readable by its owner only. Others can go on writing.

    Raises UnfitDatabase.
    """
    uri = f"{database.as_uri()}?mode=rw"
    with _damage_explained(), closing(Database.connect(uri, uri=True, timeout=30, isolation_level=None)) as source:
        # Without a snapshot, each change by another process would restart the copy.
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_master").fetchone()
        copy_pages(source, copy)


def copy_pages(source: Any, copy: Path) -> None:
    """Copy the database of the connection `source`, which must be in a transaction, to a new file."""
    os.close(_new(copy))
    with closing(Database.connect(copy)) as target:
        source.backup(target, pages=_PAGES_AT_ONCE, progress=lambda *_: time.sleep(_PAUSE_SECONDS))
        target.execute("PRAGMA journal_mode=DELETE")
    sync(copy)


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def copy_files(database: Path, copy: Path) -> None:
    """Copy an unused database, in whatever state, byte by byte with its journals."""
    for suffix in ("", "-wal", "-journal"):
        source = Path(f"{database}{suffix}")
        if not suffix or source.exists():
            target = Path(f"{copy}{suffix}")
            with source.open("rb") as bytes_in, os.fdopen(_new(target), "wb") as bytes_out:
                shutil.copyfileobj(bytes_in, bytes_out, 1 << 20)
            sync(target)


def verify(copy: Path) -> Content:
    """Merge the journals of a copy, verify it, and return its content. Raises UnfitDatabase."""
    with copy.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise UnfitDatabase(_("is not an SQLite database"))
    with _damage_explained(), closing(Database.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        is_intact = connection.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]
        if not is_intact or connection.execute("PRAGMA foreign_key_check").fetchone():
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
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except Database.DatabaseError as exc:
        if is_damage(exc):
            raise UnfitDatabase(_("is damaged")) from None
        if "no such column" in str(exc):
            raise UnfitDatabase(_("is not a database of this service")) from None
        raise


def is_damage(exc: Exception) -> bool:
    """Tell whether SQLite reports a problem with the file's content, not with its access."""
    return any(words in str(exc) for words in ("malformed", "not a database", "unsupported file format"))


def publish(copy: Path, path: Path) -> None:
    """Give a complete file its final name. Raises FileExistsError if the name is taken, without any race."""
    try:
        os.link(copy, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system: reserve the name first, then move the file there
        os.close(_new(path))
        try:
            copy.replace(path)
        except BaseException:
            path.unlink()
            raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
