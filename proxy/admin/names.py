"""How models and their fields are called, in the reader's language.

Said here and not in the models, where each name would need a migration for something no database sees.
"""

from typing import Any

from django.db.models import Model
from django.utils.translation import gettext_lazy as _

from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, Project, Quota

# A model: one, many, and fields that Django would name in English.
NAMES: dict[type[Model], tuple[Any, Any, dict[str, Any]]] = {
    ApiKey: (
        _("API key"),
        _("API keys"),
        {"name": _("name"), "project": _("project"), "last_used": _("last used"), "created_at": _("created at")},
    ),
    Project: (_("project"), _("projects"), {"name": _("name")}),
    Quota: (_("quota"), _("quotas"), {"project": _("project")}),
    DailyUsage: (
        _("daily usage"),
        _("daily usage"),
        {
            "day": _("day"),
            "key": _("key"),
            "model_name": _("model name"),
            "answers": _("answers"),
            "imported_answers": _("imported answers"),
            "errors": _("errors"),
            "refusals": _("refusals"),
            "prompt_tokens": _("prompt tokens"),
            "output_tokens": _("output tokens"),
            "thinking_tokens": _("thinking tokens"),
            "cached_tokens": _("cached tokens"),
        },
    ),
    ExhaustionEvent: (
        _("exhaustion event"),
        _("exhaustion events"),
        {
            "key": _("key"),
            "project": _("project"),
            "model_name": _("model name"),
            "window": _("window"),
            "limit": _("limit"),
            "since": _("since"),
            "until": _("until"),
        },
    ),
}


def set_names() -> None:
    """Give the models and their fields these names."""
    for model, (one, many, fields) in NAMES.items():
        model._meta.verbose_name, model._meta.verbose_name_plural = one, many
        for field in model._meta.fields:
            field.verbose_name = fields.get(field.name, field.verbose_name)
