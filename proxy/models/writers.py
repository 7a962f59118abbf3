"""The processes that write, so that each can look up whether its last batch was committed."""

from django.db import models


class LedgerWriter(models.Model):
    """The ledger of one process."""

    # Random, made when the process starts.
    id = models.BigIntegerField(primary_key=True)
    # The number of its last committed batch.
    batch = models.BigIntegerField()
    # When that was. Rows are deleted a day later.
    committed_at = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.id)
