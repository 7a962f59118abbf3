"""Filters of the list of keys."""

from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from proxy.models import KeyState


class StateFilter(admin.SimpleListFilter):
    """By the state of the key."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, str(state.label)) for state in KeyState if state is not KeyState.DELETED]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == KeyState.BAD:
            return queryset.bad()
        if self.value() == KeyState.DISABLED:
            return queryset.disabled()
        return queryset.usable() if self.value() == KeyState.USABLE else queryset


class ProjectFilter(admin.SimpleListFilter):
    """By whether the project is known or shared."""

    title = gettext_lazy("project")
    parameter_name = "its_project"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("shared", _("shared with other keys")), ("known", _("known")), ("unknown", _("unknown"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == "shared":
            return queryset.filter(project_size__gt=1)
        is_unknown = Q(project__name="")
        return queryset.filter({"known": ~is_unknown, "unknown": is_unknown}.get(str(self.value()), Q()))
