"""What a claim costs when nearly all keys are exhausted."""

from bench.table import Row


def claims() -> list[Row]:
    """Return the us of a claim with 10,000 keys, 9,990 of them exhausted; the reference has 10 keys."""
    raise NotImplementedError
