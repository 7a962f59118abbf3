"""Questions about the pool and its history, answered in a few queries each, for pages and commands. No HTTP."""

from proxy.dashboard.reports.pool import exhaustion_in_force, obstacles, pool_state, today

__all__ = ["exhaustion_in_force", "obstacles", "pool_state", "today"]
