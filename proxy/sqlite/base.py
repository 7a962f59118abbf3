"""Django's SQLite backend, changed to wait for the write lock outside SQLite.

SQLite's own busy wait sleeps inside C. Under gevent that stops a whole worker with all its streams, and with many
writers it is unfair (one was seen to wait 4 s). Here SQLite never waits: a statement on a locked database is retried
after a short sleep, during which other greenlets run.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when one connection commits while another starts a second checkpoint
(sqlite.org/wal.html). If pysqlite3 is installed, its newer SQLite replaces Python's.
"""

import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

try:
    import pysqlite3
except ImportError:
    import sqlite3  # noqa: F401  # so that it is in sys.modules
else:
    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

Database = sys.modules["sqlite3"]

_T = TypeVar("_T")


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection whose writers wait for up to `OPTIONS["timeout"]` seconds.

    It refuses to begin a transaction once its file has been deleted or replaced: SQLite would go on writing to the
    deleted file, and everything would be lost.
    """

    # A process that serves never creates the file: when it is deleted, the counts must not go into an empty one.
    may_create = True

    # The device and inode of the file that is open; None for a database in memory.
    _file: tuple[int, int] | None = None

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        self._patience_seconds = float(params.pop("timeout", 5))
        if not self.may_create and not self.is_in_memory_db():
            params["database"] = f"{Path(params['database']).absolute().as_uri()}?mode=rw"
        return {**params, "timeout": 0}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        try:
            opened = self.waiting_for_turn(partial(super().get_new_connection, conn_params))
        except Database.OperationalError:
            if not self.may_create and self._identity() is None:
                raise self._gone() from None
            raise
        self._file = self._identity()
        return opened

    def _start_transaction_under_autocommit(self) -> None:
        if self._file is not None and self._identity() != self._file:
            raise self._gone()
        super()._start_transaction_under_autocommit()  # type: ignore[misc]  # missing in the stubs

    def _gone(self) -> OperationalError:
        return OperationalError(f"{self.settings_dict['NAME']} was deleted or replaced.")

    def _identity(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = os.stat(self.settings_dict["NAME"])  # noqa: PTH116  # on the hot path
            return found.st_dev, found.st_ino
        return None

    def create_cursor(self, name: Any = None) -> "_PatientCursor":
        cursor: _PatientCursor = self.connection.cursor(factory=_PatientCursor)
        cursor.wrapper = self
        return cursor

    def waiting_for_turn(self, write: Callable[[], _T]) -> _T:
        """Call `write` once the database is free, and return its result. OperationalError if it is locked too long."""
        give_up_at = time.monotonic() + self._patience_seconds
        pause = 0.0005
        while True:
            try:
                return write()
            except Database.OperationalError as exc:
                if "locked" not in str(exc) or time.monotonic() > give_up_at:
                    raise
            # Jitter, so that two processes do not collide again and again.
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(pause * 1.5, 0.02)


class _PatientCursor(base.SQLiteCursorWrapper):
    """Waits for the lock in BEGIN and in statements outside a transaction. Inside one, it has the lock."""

    wrapper: DatabaseWrapper

    def convert_query(self, query: str, *, param_names: Any = None) -> str:
        """Convert parameters to SQLite's style. The result is cached, since the ledger uses the same few statements."""
        return _converted(query) if param_names is None else str(super().convert_query(query, param_names=param_names))

    def execute(self, query: str, params: Any = None) -> Any:
        if self.wrapper.in_atomic_block:
            return super().execute(query, params)
        return self.wrapper.waiting_for_turn(lambda: super(_PatientCursor, self).execute(query, params))


@lru_cache(maxsize=512)
def _converted(query: str) -> str:
    return str(base.SQLiteCursorWrapper.convert_query(cast("Any", None), query))
