"""The admin: keys are added, named, given a project, disabled, revived, deleted; the ledgers are read."""

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.db.models import Max, OuterRef, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters

from proxy.keycheck import Verdict, check_keys
from proxy.keyfile import read_keys
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, KeyState, Place
from proxy.pool import add_keys
from proxy.reports import today

admin.site.site_header = "Gemini key manager"
admin.site.site_title = "Gemini key manager"
admin.site.index_title = "Keys and usage"
admin.site.site_url = None  # the pages link to the dashboard themselves
admin.site.unregister(Group)


if TYPE_CHECKING:  # Django's classes take a model only in the stubs
    KeyForm = forms.ModelForm[ApiKey]
    KeyAdmin = admin.ModelAdmin[ApiKey]
    UsageAdmin = admin.ModelAdmin[Any]
else:
    KeyForm, KeyAdmin, UsageAdmin = forms.ModelForm, admin.ModelAdmin, admin.ModelAdmin


class NewKeysForm(KeyForm):
    """One key, or many: a textarea, one a line."""

    secrets = forms.CharField(
        label="API keys",
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "autocomplete": "off"}),
        help_text="One key a line, as Google AI Studio shows them. Lines that begin with # and keys that are here "
        "already do no harm. A key cannot be read again later.",
    )

    class Meta:
        model = ApiKey
        fields = ["secrets", "name", "project"]

    def clean_secrets(self) -> list[str]:
        lines = read_keys(self.cleaned_data["secrets"])
        if lines.malformed:
            raise forms.ValidationError(f"These lines are no keys: {', '.join(map(str, lines.malformed))}.")
        if not lines.secrets:
            raise forms.ValidationError("There is no key here.")
        return lines.secrets


class StateFilter(admin.SimpleListFilter):
    """By what can be said of the key as a whole."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, str(state.label)) for state in KeyState if state is not KeyState.DELETED]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == KeyState.BAD:
            return queryset.bad()
        if self.value() == KeyState.DISABLED:
            return queryset.filter(is_enabled=False, fault="")
        return queryset.usable() if self.value() == KeyState.USABLE else queryset


@admin.register(ApiKey)
class ApiKeyAdmin(KeyAdmin):
    """Keys, masked everywhere."""

    list_display = ["label_shown", "project", "state_shown", "answers_today", "last_used_shown"]
    list_filter = [StateFilter, "project"]
    search_fields = ["name", "project"]
    ordering = ["id"]
    list_per_page = 100
    fields = ["masked", "name", "project", "is_enabled", "state_shown", "created_at"]
    readonly_fields = ["masked", "state_shown", "created_at"]
    actions = ["check_with_google", "enable", "disable", "revive"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        usage = DailyUsage.objects.filter(key=OuterRef("pk"), day=today(timezone.now())).order_by()
        places = Place.objects.filter(key=OuterRef("pk")).order_by()
        return (
            ApiKey.objects.present()
            .annotate(answers_today=Subquery(usage.values("key").annotate(sum=Sum("answers")).values("sum")))
            .annotate(last_used=Subquery(places.values("key").annotate(last=Max("last_used")).values("last")))
            .annotate(rests=Subquery(places.resting(timezone.now()).order_by("-rests_until").values("model_name")[:1]))
        )

    @admin.display(description="key", ordering="name")
    def label_shown(self, key: ApiKey) -> str:
        return key.label

    @admin.display(description="state", ordering="fault")
    def state_shown(self, key: ApiKey) -> str:
        if key.state is KeyState.BAD:
            return format_html("✕ {}: {}", key.get_fault_display(), key.fault_reason or "no reason given")
        if key.state is KeyState.DISABLED:
            return "○ disabled"
        rests = getattr(key, "rests", None)
        return "● usable" if rests is None else f"◐ resting for {rests or 'all models'}"

    @admin.display(description="answers today", ordering="answers_today")
    def answers_today(self, key: ApiKey) -> int:
        return getattr(key, "answers_today", None) or 0

    @admin.display(description="last used", ordering="last_used")
    def last_used_shown(self, key: ApiKey) -> Any:
        last_used = getattr(key, "last_used", None)
        if not last_used:
            return None
        return date_format(datetime.fromtimestamp(last_used / 1e6, timezone.get_current_timezone()), "j M H:i")

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return ["secrets", "name", "project"] if obj is None else list(self.fields or [])

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return [] if obj is None else list(self.readonly_fields)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if change else NewKeysForm

    @method_decorator(sensitive_post_parameters("secrets"))
    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        only_save = {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **only_save})

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Write a change with all that follows from it, or add every key that was pasted."""
        if change:
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            ApiKey.objects.filter(pk=obj.pk).change(timezone.now(), **values)
            return
        secrets = form.cleaned_data["secrets"]
        added = add_keys(secrets, timezone.now(), name=obj.name, project=obj.project)
        self.message_user(request, f"{added.new} added, {added.known} known.", messages.SUCCESS)
        obj.pk = ApiKey.objects.get(secret=secrets[0]).pk  # what the admin writes its log about

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return redirect("admin:proxy_apikey_changelist")

    def delete_model(self, request: HttpRequest, obj: ApiKey) -> None:
        ApiKey.objects.filter(pk=obj.pk).forget(timezone.now())

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        queryset.forget(timezone.now())

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Say what deleting takes away: the secret. The history stays, so nothing stands in the way."""
        labels = [key.label for key in objs]
        return labels, {"API keys": len(labels)}, set(), []

    @admin.action(description="Check with Google (spends no quota)")
    def check_with_google(self, request: HttpRequest, queryset: Any) -> None:
        found = Counter(verdict for _, verdict, _ in check_keys(queryset, timezone.now()))
        told = ", ".join(f"{found[verdict]} {verdict}" for verdict in Verdict)
        self.message_user(request, f"Checked: {told}.", messages.WARNING if found[Verdict.BAD] else messages.SUCCESS)

    @admin.action(description="Enable")
    def enable(self, request: HttpRequest, queryset: Any) -> None:
        self.message_user(request, f"{queryset.enable(timezone.now())} enabled.", messages.SUCCESS)

    @admin.action(description="Disable")
    def disable(self, request: HttpRequest, queryset: Any) -> None:
        self.message_user(request, f"{queryset.disable(timezone.now())} disabled.", messages.SUCCESS)

    @admin.action(description="Revive: forget faults and exhaustion")
    def revive(self, request: HttpRequest, queryset: Any) -> None:
        self.message_user(request, f"{queryset.revive(timezone.now())} revived.", messages.SUCCESS)


class LedgerAdmin(UsageAdmin):
    """A ledger: it can be read and filtered, and is written by the service alone."""

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
    """What each key did for each model on each quota day."""

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
    list_filter = ["day", "model_name", "key__project"]
    search_fields = ["key__name", "key__project", "model_name"]
    date_hierarchy = "day"
    ordering = ["-day", "-answers"]


@admin.register(ExhaustionEvent)
class ExhaustionEventAdmin(LedgerAdmin):
    """What ran out, since when and until when."""

    list_display = ["since", "until_shown", "key", "project", "model_shown", "window", "limit"]
    list_filter = ["window", "model_name", "project"]
    search_fields = ["key__name", "project", "model_name"]
    date_hierarchy = "since"
    ordering = ["-since"]

    @admin.display(description="until", ordering="until")
    def until_shown(self, event: ExhaustionEvent) -> Any:
        return event.until or "somebody acts"

    @admin.display(description="model", ordering="model_name")
    def model_shown(self, event: ExhaustionEvent) -> str:
        return event.model_name or "all models"
