"""The database tables: the pool, its quotas and its history.

Each module imports only those before it: nodes, projects, exhaustion, quotas, keys, usage, history, resources.
"""

from proxy.models.exhaustion import ALL_MODELS, ExhaustionEvent
from proxy.models.history import FirstByte, FirstByteDay, KeyHour, LoggedRequest, ModelDay, ModelHour, Outcome
from proxy.models.keys import FAULTS, ApiKey, KeyState, key_label, shown_label
from proxy.models.nodes import LedgerWriter, SharedSecretKey, database_now
from proxy.models.projects import Project
from proxy.models.quotas import COMMON_ROTATION, NO_MODEL, GeminiModel, Quota, Use, lock_quotas
from proxy.models.resources import Owner, Resource
from proxy.models.usage import DailyUsage

__all__ = [
    "ALL_MODELS",
    "COMMON_ROTATION",
    "FAULTS",
    "NO_MODEL",
    "ApiKey",
    "DailyUsage",
    "ExhaustionEvent",
    "FirstByte",
    "FirstByteDay",
    "GeminiModel",
    "KeyHour",
    "KeyState",
    "LedgerWriter",
    "LoggedRequest",
    "ModelDay",
    "ModelHour",
    "Outcome",
    "Owner",
    "Project",
    "Quota",
    "Resource",
    "SharedSecretKey",
    "Use",
    "database_now",
    "key_label",
    "lock_quotas",
    "shown_label",
]
