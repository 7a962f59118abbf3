"""Where to cut a long body that is looked through: other requests have their turn in between."""

import time
from collections.abc import Iterator

SLICE_BYTES = 32_768  # looked through in a few milliseconds, whatever it holds
_TURN_SECONDS = 0.005


def slice_ends(start: int, size: int) -> Iterator[int]:
    """Yield where each slice of a body ends, from `start` up to `size`; between two, other greenlets may run."""
    turn = time.perf_counter() + _TURN_SECONDS
    for end in range(start + SLICE_BYTES, size, SLICE_BYTES):
        yield end
        if time.perf_counter() > turn:
            time.sleep(0)
            turn = time.perf_counter() + _TURN_SECONDS
    if start < size:
        yield size
