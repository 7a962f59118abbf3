"""Reports on the pool and its history, for pages and commands. Each takes a few queries. No HTTP."""

from proxy.dashboard.reports.health import obstacles
from proxy.dashboard.reports.pool import exhaustion_in_force, pool_state, today

__all__ = ["exhaustion_in_force", "obstacles", "pool_state", "today"]
