"""The admin of keys: add, name, assign to a project, check, enable, disable, revive, delete."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, DELETION
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from proxy.accounts.activity import MOST_TOLD, note
from proxy.admin.key_filters import ProjectFilter, StateFilter
from proxy.admin.key_forms import ChangeKeyForm, NewKeysForm
from proxy.admin.paste import Preview
from proxy.dashboard.reports import today
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, KeyState, database_now
from proxy.pool.actions import ACTIONS, KeyAction, apply
from proxy.pool.adding import add_keys
from proxy.pool.key_check import Verdict, check_keys
from proxy.pool.key_file import KeyLines
from proxy.pool.summary import malformed_warning, odd_warning, summary

_LEVELS = {Verdict.GOOD: messages.SUCCESS, Verdict.BAD: messages.ERROR, Verdict.UNKNOWN: messages.WARNING}


def _admin_action(action: KeyAction) -> Callable[..., None]:
    """Return the admin's form of an action."""

    def run(model_admin: Any, request: HttpRequest, queryset: Any) -> None:
        apply(action, request, queryset)

    run.__name__ = action.name
    return admin.action(run, permissions=["change"], description=action.label)


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin[ApiKey]):
    """Keys, always masked."""

    list_display = ["label_shown", "project_shown", "state_shown", "answers_today", "last_used"]
    list_filter = [StateFilter, ProjectFilter]
    list_select_related = ["project"]
    search_fields = ["name", "project__name"]
    ordering = ["id"]
    list_per_page = 100
    form = ChangeKeyForm
    add_form_template = "admin/proxy/apikey/add_form.html"
    fields = ["masked", "name", "project_name", "shares_with", "is_enabled", "state_shown", "last_used", "created_at"]
    readonly_fields = ["masked", "shares_with", "state_shown", "last_used", "created_at"]
    actions = [_admin_action(action) for action in ACTIONS.values() if not action.needs_project]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        usage = DailyUsage.objects.filter(key=OuterRef("pk"), day=today(database_now())).order_by()
        events = ExhaustionEvent.objects.in_force(database_now()).filter(project=OuterRef("project"))
        siblings = ApiKey.objects.present().filter(project=OuterRef("project")).order_by().values("project")
        return (
            ApiKey.objects.present()
            .annotate(answers_today=Subquery(usage.values("key").annotate(sum=Sum("answers")).values("sum")))
            .annotate(limited_model=Subquery(events.order_by("-until").values("model_name")[:1]))
            .annotate(project_size=Subquery(siblings.annotate(size=Count("id")).values("size")))
        )

    @admin.display(description=gettext_lazy("key"), ordering="name")
    def label_shown(self, key: ApiKey) -> str:
        return key.label

    @admin.display(description=gettext_lazy("masked"))
    def masked(self, key: ApiKey) -> str:
        return key.masked

    @admin.display(description=gettext_lazy("state"), ordering="fault")
    def state_shown(self, key: ApiKey) -> str:
        if key.state is KeyState.BAD:
            return format_html("✕ {}: {}", key.get_fault_display(), key.fault_reason or _("no reason given"))
        if key.state is KeyState.DISABLED:
            return _("○ disabled")
        model_name = getattr(key, "limited_model", None)
        if model_name is None:
            return _("● usable")
        return _("◐ rate-limited for %(model)s") % {"model": model_name or _("all models")}

    @admin.display(description=gettext_lazy("answers today"), ordering="answers_today")
    def answers_today(self, key: ApiKey) -> int:
        return getattr(key, "answers_today", None) or 0

    @admin.display(description=gettext_lazy("project"), ordering="project__name")
    def project_shown(self, key: ApiKey) -> str:
        size = getattr(key, "project_size", 1)
        url = reverse("admin:proxy_project_change", args=[key.project_id])
        more = _(", with %(count)d more") % {"count": size - 1} if size > 1 else ""
        return format_html('<a href="{}">{}</a>{}', url, key.project, more)

    @admin.display(description=gettext_lazy("shares its quotas with"))
    def shares_with(self, key: ApiKey) -> str:
        others = ApiKey.objects.present().filter(project=key.project_id).exclude(pk=key.pk)
        return _(", ").join(other.label for other in others) or _("no other known key")

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

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view  # requires a login, and forbids caching
        own = [
            path("preview/", wrap(self.preview), name="proxy_apikey_preview"),
            path("<int:key_id>/check/", wrap(self.check_one), name="proxy_apikey_check"),
        ]
        return own + super().get_urls()

    @method_decorator([require_POST, sensitive_post_parameters("secrets")])
    def preview(self, request: HttpRequest) -> HttpResponse:
        """Describe each pasted line, without writing anything. For the script of the page that adds keys."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        preview = Preview.of(request.POST.get("secrets", ""), request.POST.get("project_name", ""))
        content = {
            "summary": preview.summary(),
            "lines": render_to_string("admin/proxy/apikey/_preview.html", {"preview": preview}).strip(),
            "button": preview.button,
            "left_out": preview.malformed,
        }
        return JsonResponse(content)

    @method_decorator(require_POST)
    def check_one(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Check one key with Google, and show the result on its page."""
        key = get_object_or_404(ApiKey.objects.present(), pk=key_id)
        if not self.has_change_permission(request, key):
            raise PermissionDenied
        note(request.user, gettext_noop("Checked with Google"), [key])
        for _key, verdict, reason in check_keys([key], database_now()):
            result = _(", ").join(filter(None, [verdict.label, reason.rstrip(".")]))
            self.message_user(request, _("Checked with Google: %(result)s.") % {"result": result}, _LEVELS[verdict])
        return redirect("admin:proxy_apikey_change", key_id)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Write a change and recompute its quotas, or add all pasted keys."""
        if change:
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            keys = ApiKey.objects.filter(pk=obj.pk)
            if (project_name := values.pop("project_name", None)) is not None:
                keys.move_to(project_name, database_now())
            keys.change(database_now(), **values)
            return
        lines: KeyLines = form.cleaned_data["lines"]
        project = form.cleaned_data["project_name"]
        added = add_keys(lines.secrets, database_now(), name=obj.name, names=lines.names, project=project)
        self.message_user(request, summary(lines, added.new, added.known), messages.SUCCESS)
        for warning in filter(None, [malformed_warning(lines), odd_warning(lines)]):
            self.message_user(request, warning, messages.WARNING)
        first = ApiKey.objects.filter(secret__in=lines.secrets[:MOST_TOLD]).order_by("id")
        note(request.user, gettext_noop("Added"), first if added.new else [], flag=ADDITION, count=added.new)
        obj.pk = first[0].pk  # the admin needs one afterwards

    def log_addition(self, request: HttpRequest, obj: ApiKey, message: Any) -> Any:
        """Do nothing: `save_model` has written one entry for all keys."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Write one entry for all keys, while they still have their labels."""
        note(request.user, gettext_noop("Deleted"), queryset, flag=DELETION)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return redirect("admin:proxy_apikey_changelist")

    def delete_model(self, request: HttpRequest, obj: ApiKey) -> None:
        ApiKey.objects.filter(pk=obj.pk).forget(database_now())

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        queryset.forget(database_now())

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return the labels of the keys. Deleting removes only the secret, so no related object prevents it."""
        labels = [key.label for key in objs]
        return labels, {str(ApiKey._meta.verbose_name_plural): len(labels)}, set(), []
