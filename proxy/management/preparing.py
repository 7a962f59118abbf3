"""Preparing a database that several nodes may prepare at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

# An advisory lock of PostgreSQL. An arbitrary number.
_LOCK = 1131377994
# Migrations may take as long as they need, and wait for those of another node.
_LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


@contextmanager
def one_node_at_a_time() -> Iterator[None]:
    """Wait until no other node prepares the database, and keep them waiting meanwhile. On SQLite, do nothing."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        for limit in _LIMITS:
            cursor.execute(f"SET {limit} = 0")
        cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
            for limit in _LIMITS:
                cursor.execute(f"RESET {limit}")
