"""The nodes that share the database: their clock, their secret key, and the batches that they write."""

from datetime import datetime

from django.conf import settings
from django.db import connection, models
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac


def database_now() -> datetime:
    """Return the date and time by the clock of the database: the server's on PostgreSQL, this machine's on SQLite."""
    return _server_now() if connection.vendor == "postgresql" else timezone.now()


def _server_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment


class LedgerWriter(models.Model):
    """The ledger of one process, which can look up here whether its last batch was committed."""

    # Random, made when the process starts.
    id = models.BigIntegerField(primary_key=True)
    # The number of its last committed batch.
    batch = models.BigIntegerField()
    # When that was. Rows are deleted a day later.
    committed_at = models.DateTimeField()
    # It may hold leased turns. When it dies with them, their quotas are counted again.
    has_turns = models.BooleanField(default=False)

    def __str__(self) -> str:
        return str(self.id)


class SharedSecretKey(models.Model):
    """The one row that tells whether all nodes have the same SECRET_KEY."""

    # An HMAC made with it.
    fingerprint = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.fingerprint

    @classmethod
    def is_ours(cls) -> bool:
        """Tell whether this node has the SECRET_KEY of the first one."""
        first, _ = cls.objects.get_or_create(id=1, defaults={"fingerprint": _fingerprint()})
        return constant_time_compare(first.fingerprint, _fingerprint())

    @classmethod
    def replace(cls) -> None:
        """Make this node's SECRET_KEY the one that all nodes must have."""
        cls.objects.update_or_create(id=1, defaults={"fingerprint": _fingerprint()})


def _fingerprint() -> str:
    return salted_hmac("proxy.models.nodes", "", settings.SECRET_KEY, algorithm="sha256").hexdigest()
