"""The admin of usage and exhaustion events, which are read-only."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from proxy.models import DailyUsage, ExhaustionEvent


class LedgerAdmin(admin.ModelAdmin[Any]):
    """Rows that only the service writes. People can read and filter them."""

    list_per_page = 100
    list_select_related = ["key"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(DailyUsage)
class DailyUsageAdmin(LedgerAdmin):
    """The usage of each key by model and quota day."""

    list_display = [
        "day",
        "key",
        "model_name",
        "answers",
        "errors",
        "refusals",
        "prompt_tokens",
        "output_tokens",
        "thinking_tokens",
        "cached_tokens",
    ]
    list_filter = ["day", "model_name"]
    search_fields = ["key__name", "key__project__name", "model_name"]
    date_hierarchy = "day"
    ordering = ["-day", "-answers"]


@admin.register(ExhaustionEvent)
class ExhaustionEventAdmin(LedgerAdmin):
    """Quotas that were exceeded."""

    list_display = ["since", "until_shown", "key", "project", "model_shown", "window", "limit"]
    list_select_related = ["key", "project"]
    list_filter = ["window", "model_name"]
    search_fields = ["key__name", "project__name", "model_name"]
    date_hierarchy = "since"
    ordering = ["-since"]

    @admin.display(description=gettext_lazy("until"), ordering="until")
    def until_shown(self, event: ExhaustionEvent) -> Any:
        return event.until or _("revived manually")

    @admin.display(description=gettext_lazy("model"), ordering="model_name")
    def model_shown(self, event: ExhaustionEvent) -> str:
        return event.model_name or _("all models")
