"""Databases for services under test: copies of a migrated one, on SQLite or on the tests' PostgreSQL server."""

import atexit
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg

ROOT = Path(__file__).resolve().parents[1]
# Set by tests/with-postgres.
SERVER = url if (url := os.environ.get("DATABASE_URL", "")).startswith("postgres") else ""


class ServiceDatabase:
    """The database of one service. On SQLite it is `file`, in a folder that must exist by the time it is used."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = f"service_{uuid4().hex}" if SERVER else ""
        self.url = url_of(self.name) if SERVER else f"sqlite:///{file}"

    def create(self, *, is_migrated: bool = True) -> None:
        """Create it, with all tables or empty."""
        if SERVER:
            template = f'TEMPLATE "{_migrated_name()}"' if is_migrated else ""
            _on_server(f'CREATE DATABASE "{self.name}" {template}')
            atexit.register(_on_server, f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')
        elif is_migrated:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(_migrated_file(), self.file)
            self.file.chmod(0o600)

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Yield a connection; commit at the end."""
        connection: Any = psycopg.connect(self.url) if SERVER else sqlite3.connect(self.file, timeout=10)
        with closing(connection), connection:
            yield connection

    def copy_from(self, other: Self) -> None:
        """Replace it with a copy of another database that nothing has open."""
        if SERVER:
            _on_server(f'DROP DATABASE "{self.name}"')
            _on_server(f'CREATE DATABASE "{self.name}" TEMPLATE "{other.name}"')
        else:
            shutil.copyfile(other.file, self.file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the write lock, as another process would."""
        from proxy.models.quotas import QUOTA_LOCK  # noqa: PLC0415  # needs Django, which the benchmark does not start

        with self.connect() as connection:
            connection.execute(f"SELECT pg_advisory_xact_lock({QUOTA_LOCK})" if SERVER else "BEGIN IMMEDIATE")
            yield

    def rows(self, question: str) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a SELECT."""
        with self.connect() as connection:
            found: Sequence[tuple[Any, ...]] = connection.execute(question).fetchall()
            return found


@cache
def _migrated_file() -> Path:
    folder = mkdtemp(prefix="keymanager-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder) / "migrated.sqlite3"
    _migrate(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


@cache
def _migrated_name() -> str:
    name = f"migrated_{uuid4().hex}"
    _on_server(f'CREATE DATABASE "{name}"')
    atexit.register(_on_server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    _migrate(url_of(name))
    return name


def _migrate(url: str) -> None:
    variables = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "LOG_DIR": "", "SECRET_KEY": "x" * 50}
    command = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
    subprocess.run(command, cwd=ROOT, env=variables, check=True, timeout=120)


def url_of(name: str) -> str:
    return urlunsplit(urlsplit(SERVER)._replace(path=f"/{name}"))


def _on_server(statement: str) -> None:
    with psycopg.connect(SERVER, autocommit=True) as connection:
        connection.execute(statement)
