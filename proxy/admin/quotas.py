"""The admin of limits: those reported by Google, and those that people set, which take precedence."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext

from proxy.accounts.activity import note
from proxy.dashboard.reports import today
from proxy.gemini.quota_day import next_reset
from proxy.gemini.refusals import Window
from proxy.models import ExhaustionEvent, GeminiModel, Project, Quota, database_now
from proxy.models.quotas import SET_NAMES


@admin.display(description=gettext_lazy("reported by Google"))
def learned_limits(quota: Quota) -> str:
    """Return the limits that Google has reported, in words."""
    if quota.pk is None:
        return ""
    limits = {
        _("%(limit)s per minute"): quota.learned_requests_per_minute,
        _("%(limit)s tokens per minute"): quota.learned_input_tokens_per_minute,
        _("%(limit)s per day"): quota.learned_requests_per_day,
    }
    known = [words % {"limit": f"{limit:,}"} for words, limit in limits.items() if limit is not None]
    return _(", ").join(known) or _("nothing yet")


@admin.display(description=gettext_lazy("used today"))
def used_today(quota: Quota) -> str:
    """Return how many of the day's requests are used, and of how many."""
    if quota.pk is None:
        return ""
    used = quota.day_requests if quota.day == today(timezone.now()) else 0
    limit = quota.limit_in_force("requests_per_day")
    return f"{used:,}" if limit is None else _("%(used)s of %(limit)s") % {"used": f"{used:,}", "limit": f"{limit:,}"}


@admin.display(description=gettext_lazy("state"))
def state(quota: Quota) -> str:
    """Return whether the quota is available now, as a shape and in words."""
    if quota.pk is None:
        return ""
    if quota.is_open:
        return _("● available")
    if quota.is_barred or quota.opens_at is None:
        return _("○ unavailable until revived manually")
    moment = timezone.now()
    if quota.opens_at <= moment:
        return _("● available")
    words = {"moment": date_format(localtime(quota.opens_at), _("M d, H:i:s"))}
    if getattr(quota, "is_exhausted", False) or quota.opens_at >= next_reset(moment, settings.QUOTA_ZONE):
        return _("◐ exhausted until %(moment)s") % words
    return _("◐ rate-limited until %(moment)s") % words


def with_exhaustion(quotas: QuerySet[Quota]) -> QuerySet[Quota]:
    """Add `is_exhausted`: whether Google has refused a request because of the daily limit, for `state`."""
    of_day = ExhaustionEvent.objects.in_force(database_now()).filter(window=Window.DAY)
    of_quota = of_day.filter(project=OuterRef("project"), model_name=OuterRef("model_name"))
    return quotas.annotate(is_exhausted=Exists(of_quota))


def keys_of(project: Project) -> str:
    """Return the labels of the project's keys, at most five of them."""
    labels = [key.label for key in project.keys.all() if key.deleted_at is None]
    shown = _(", ").join(labels[:5])
    return _("%(keys)s and %(count)d more") % {"keys": shown, "count": len(labels) - 5} if len(labels) > 5 else shown


class LimitsForm(forms.ModelForm[Quota]):
    """The limits of a model, whose name cannot be changed later."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = self.fields["model_name"]
        name.required, name.disabled = True, self.instance.pk is not None

    def clean_model_name(self) -> str:
        """Return the name in the form that requests use."""
        return str(self.cleaned_data["model_name"]).removeprefix("models/")


class QuotaInline(admin.TabularInline[Quota, Project]):
    """The limits of a project, model by model. The empty row adds a model that has not been used yet."""

    model = Quota
    form = LimitsForm
    fields = ["model_name", *SET_NAMES, "reported", "used", "state"]
    readonly_fields = ["reported", "used", "state"]
    extra = 1
    can_delete = False
    verbose_name, verbose_name_plural = gettext_lazy("model"), gettext_lazy("limits by model")
    reported, used, state = staticmethod(learned_limits), staticmethod(used_today), staticmethod(state)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quota]:
        quotas = super().get_queryset(request).filter(pk__in=Quota.objects.of_models())
        return with_exhaustion(quotas).order_by("model_name")


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin[Project]):
    """Projects, their keys and their limits."""

    list_display = ["name_shown", "keys_shown"]
    search_fields = ["name", "keys__name"]
    list_per_page = 100
    fields = ["name", "keys_shown"]
    readonly_fields = ["keys_shown"]
    inlines = [QuotaInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Project]:
        is_present = Q(keys__deleted_at=None)
        projects = super().get_queryset(request).annotate(size=Count("keys", filter=is_present)).filter(size__gt=0)
        return projects.prefetch_related("keys").order_by("-size", "name", "id")

    @admin.display(description=gettext_lazy("project"), ordering="name")
    def name_shown(self, project: Project) -> str:
        return str(project)

    @admin.display(description=gettext_lazy("keys, which share its quotas"))
    def keys_shown(self, project: Project) -> str:
        return keys_of(project)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # created with their keys

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Write limits and recompute their quotas. A new model gets a rotation."""
        for quota in formset.save(commit=False):
            if quota.pk is None:
                GeminiModel.objects.begin(quota.model_name)
            rows = Quota.objects.filter(project=quota.project_id, model_name=quota.model_name)
            rows.set_limits(database_now(), **{name: getattr(quota, name) for name in SET_NAMES})


@admin.register(Quota)
class QuotaAdmin(admin.ModelAdmin[Quota]):
    """Limits and use of all projects, by model."""

    list_display = ["model_name", "project_shown", "state", "used", *SET_NAMES, "reported"]
    list_editable = SET_NAMES
    list_filter = ["model_name"]
    list_select_related = ["project"]
    search_fields = ["project__name", "model_name", "project__keys__name"]
    ordering = ["model_name", "project"]
    list_per_page = 50
    fields = ["model_name", "project_shown", *SET_NAMES, "reported", "used", "state"]
    readonly_fields = ["model_name", "project_shown", "reported", "used", "state"]
    actions = ["forget_learned"]
    reported, used, state = staticmethod(learned_limits), staticmethod(used_today), staticmethod(state)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quota]:
        quotas = super().get_queryset(request).filter(pk__in=Quota.objects.of_models())
        present = quotas.filter(project__keys__deleted_at=None).distinct()
        return with_exhaustion(present).prefetch_related("project__keys")

    @admin.display(description=gettext_lazy("project"), ordering="project__name")
    def project_shown(self, quota: Quota) -> str:
        url = reverse("admin:proxy_project_change", args=[quota.project_id])
        return format_html('<a href="{}">{}</a><br>{}', url, quota.project, keys_of(quota.project))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # created with projects, where models that have not been used yet can be added

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # limits are removed by emptying them

    def save_model(self, request: HttpRequest, obj: Quota, form: Any, change: bool) -> None:
        """Write limits and recompute their quotas."""
        limits = {name: form.cleaned_data[name] for name in form.changed_data}
        Quota.objects.filter(pk=obj.pk).set_limits(database_now(), **limits)

    @admin.action(permissions=["change"], description=gettext_lazy("Forget limits reported by Google"))
    def forget_learned(self, request: HttpRequest, queryset: Any) -> None:
        quotas = Quota.objects.filter(pk__in=list(queryset.values_list("pk", flat=True)))
        quotas.forget_learned(database_now())
        note(request.user, gettext_noop("Forgot limits reported by Google"), quotas)
        text = ngettext(
            "Limits of %(count)d quota forgotten. Google will report them again.",
            "Limits of %(count)d quotas forgotten. Google will report them again.",
            quotas.count(),
        )
        self.message_user(request, text % {"count": quotas.count()}, messages.SUCCESS)
