"""Ends the sessions of nodes that hold the lock on PostgreSQL and have fallen silent.

The server does so itself (`idle_in_transaction_session_timeout`), but not in the middle of a pipeline, where it waits
for the next statement without any limit.
"""

import logging

from django.db import DatabaseError, connection

from proxy.models.quotas import QUOTA_LOCK

logger = logging.getLogger(__name__)

_LOCK_NOT_AVAILABLE = "55P03"
_END = f"""
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND classid = 0 AND objid = {QUOTA_LOCK} AND granted AND datname = current_database()
    AND application_name = current_setting('application_name') AND wait_event = 'ClientRead'
    AND clock_timestamp() - GREATEST(state_change, query_start) > interval '1.5 seconds'
"""


def end_silent_holder(error: Exception) -> None:
    """If `error` is a wait for the lock that took too long, end the session of ours that holds it and is silent."""
    if getattr(error.__cause__, "sqlstate", "") != _LOCK_NOT_AVAILABLE:
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute(_END)
            if cursor.fetchall():
                logger.warning("A node held the lock of the database and was silent. Its session was ended.")
    except DatabaseError as exc:
        logger.warning("The session that holds the lock could not be ended: %s", exc)
