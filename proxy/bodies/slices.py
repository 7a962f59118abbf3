"""Slices of a long body that is searched, so that other requests can run in between."""

import time
from collections.abc import Iterator

SLICE_BYTES = 32_768  # searched in a few milliseconds, whatever the content
_TURN_SECONDS = 0.005


def slice_ends(start: int, size: int) -> Iterator[int]:
    """Yield the end of each slice of a body, from `start` up to `size`. Other greenlets can run between two slices."""
    turn = time.perf_counter() + _TURN_SECONDS
    for end in range(start + SLICE_BYTES, size, SLICE_BYTES):
        yield end
        if time.perf_counter() > turn:
            time.sleep(0)
            turn = time.perf_counter() + _TURN_SECONDS
    if start < size:
        yield size
