"""How long the pool backs off from an overloaded model."""

from proxy.ledger.clock import SECOND


def pause_ns(overloads: int) -> int:
    """Return the pause after this many waves of overload in a row, in nanoseconds: 0.25 s to 8 s."""
    return min(SECOND // 8 << min(overloads, 16), 8 * SECOND)
