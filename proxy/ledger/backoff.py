"""How long the pool leaves an overloaded model alone."""

from proxy.ledger.clock import SECOND


def pause_ns(overloads: int) -> int:
    """Return how long the pool backs off after so many waves of overload in a row: 0.25 s to 8 s."""
    return min(SECOND // 8 << min(overloads, 16), 8 * SECOND)
