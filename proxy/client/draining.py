"""The drain: for a while before the service stops, `/readyz` answers 503, so that load balancers go elsewhere."""

import mmap

_is_draining = mmap.mmap(-1, 1)  # shared with the workers, which are forked from the arbiter


def begin() -> None:
    """Begin the drain, in all workers."""
    _is_draining[0] = 1


def is_draining() -> bool:
    return _is_draining[0] == 1
