"""Keys are added, named, given a project, checked, disabled, revived, deleted."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters

from proxy.keycheck import Verdict, check_keys
from proxy.keyfile import read_keys
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, KeyState
from proxy.pool import add_keys
from proxy.reports import today

if TYPE_CHECKING:  # Django's classes take a model only in the stubs
    KeyForm = forms.ModelForm[ApiKey]
    KeyAdmin = admin.ModelAdmin[ApiKey]
else:
    KeyForm, KeyAdmin = forms.ModelForm, admin.ModelAdmin


class ChangeKeyForm(KeyForm):
    """A key's name, and its project by name."""

    project_name = forms.CharField(
        label="Google project",
        max_length=100,
        required=False,
        help_text="Its number, or any name. Quotas belong to projects: keys of one share them and rest together. "
        "Left empty, it is filled in when Google names it in an error.",
    )

    class Meta:
        model = ApiKey
        fields = ["name", "is_enabled"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["project_name"] = self.instance.project.name


class NewKeysForm(ChangeKeyForm):
    """One key, or many: a textarea, one a line."""

    secrets = forms.CharField(
        label="API keys",
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "autocomplete": "off"}),
        help_text="One key a line, as Google AI Studio shows them. Lines that begin with # and keys that are here "
        "already do no harm. A key cannot be read again later.",
    )

    class Meta:
        model = ApiKey
        fields = ["name"]

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


class ProjectFilter(admin.SimpleListFilter):
    """By what is known of the project."""

    title = "project"
    parameter_name = "its_project"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("shared", "shared with other keys"), ("known", "known"), ("unknown", "not known")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == "shared":
            return queryset.filter(project_size__gt=1)
        is_unknown = Q(project__name="")
        return queryset.filter({"known": ~is_unknown, "unknown": is_unknown}.get(str(self.value()), Q()))


@admin.register(ApiKey)
class ApiKeyAdmin(KeyAdmin):
    """Keys, masked everywhere."""

    list_display = ["label_shown", "project_shown", "state_shown", "answers_today", "last_used"]
    list_filter = [StateFilter, ProjectFilter]
    list_select_related = ["project"]
    search_fields = ["name", "project__name"]
    ordering = ["id"]
    list_per_page = 100
    form = ChangeKeyForm
    fields = ["masked", "name", "project_name", "shares_with", "is_enabled", "state_shown", "last_used", "created_at"]
    readonly_fields = ["masked", "shares_with", "state_shown", "last_used", "created_at"]
    actions = ["check_with_google", "enable", "disable", "revive"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        usage = DailyUsage.objects.filter(key=OuterRef("pk"), day=today(timezone.now())).order_by()
        rests = ExhaustionEvent.objects.in_force(timezone.now()).filter(project=OuterRef("project"))
        its_keys = ApiKey.objects.present().filter(project=OuterRef("project")).order_by().values("project")
        return (
            ApiKey.objects.present()
            .annotate(answers_today=Subquery(usage.values("key").annotate(sum=Sum("answers")).values("sum")))
            .annotate(rests=Subquery(rests.order_by("-until").values("model_name")[:1]))
            .annotate(project_size=Subquery(its_keys.annotate(size=Count("id")).values("size")))
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

    @admin.display(description="project", ordering="project__name")
    def project_shown(self, key: ApiKey) -> str:
        size = getattr(key, "project_size", 1)
        url = reverse("admin:proxy_project_change", args=[key.project_id])
        return format_html('<a href="{}">{}</a>{}', url, key.project, f", with {size - 1} more" if size > 1 else "")

    @admin.display(description="shares its quotas with")
    def shares_with(self, key: ApiKey) -> str:
        others = ApiKey.objects.present().filter(project=key.project_id).exclude(pk=key.pk)
        return ", ".join(other.label for other in others) or "no other key, as far as is known"

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return ["secrets", "name", "project_name"] if obj is None else list(self.fields or [])

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
            keys = ApiKey.objects.filter(pk=obj.pk)
            if (project_name := values.pop("project_name", None)) is not None:
                keys.move_to(project_name, timezone.now())
            keys.change(timezone.now(), **values)
            return
        secrets = form.cleaned_data["secrets"]
        project = form.cleaned_data["project_name"]
        added = add_keys(secrets, timezone.now(), name=obj.name, project=project)
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
