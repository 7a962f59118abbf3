"""Django's SQLite backend, changed to wait for the write lock outside SQLite.

SQLite's own busy wait sleeps inside C. Under gevent that stops a whole worker with all its streams, and with many
writers it is unfair (one was seen to wait 4 s). Here SQLite never waits: a statement on a locked database is retried
after a short sleep, during which other greenlets run.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when one connection commits while another starts a second checkpoint
(sqlite.org/wal.html). If pysqlite3 is installed, its newer SQLite replaces Python's.
"""

import random
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

try:
    import pysqlite3
except ImportError:
    import sqlite3  # noqa: F401  # so that it is in sys.modules
else:
    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2

from django.db.backends.sqlite3 import base

Database = sys.modules["sqlite3"]

_T = TypeVar("_T")


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection whose writers wait for up to `OPTIONS["timeout"]` seconds."""

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        self._patience_seconds = float(params.pop("timeout", 5))
        return {**params, "timeout": 0}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return self.waiting_for_turn(partial(super().get_new_connection, conn_params))

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
