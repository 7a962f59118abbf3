"""Quotas that were exceeded: which, since when, until when."""

from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from proxy.gemini.refusals import Refusal, Window
from proxy.models.projects import Project

if TYPE_CHECKING:
    from proxy.models.keys import ApiKey

# The model name of an event that concerns every model.
ALL_MODELS = ""
# Windows with a limit, which reset by themselves.
WITH_LIMITS = (Window.DAY, Window.MINUTE, Window.TOKENS)


class ExhaustionEventQuerySet(models.QuerySet["ExhaustionEvent"]):
    """Quotas that were exceeded."""

    def in_force(self, moment: datetime) -> Self:
        """Events that keep keys from being used at `moment`."""
        return self.filter(Q(until=None) | Q(until__gt=moment))

    def about(self, model_name: str) -> Self:
        """Events that concern a model, including those for all models; every event when `model_name` is ""."""
        return self.filter(model_name__in=[ALL_MODELS, model_name]) if model_name else self.all()

    def record(
        self, key: "ApiKey", model_name: str, refusal: Refusal, moment: datetime, until: datetime | None
    ) -> None:
        """Record that a quota is exceeded. An event in force with the same reason is extended instead."""
        what = {"key": key, "project": key.project, "model_name": model_name, "window": refusal.window}
        if not self.in_force(moment).filter(**what).update(until=until, limit=refusal.limit):
            self.create(**what, limit=refusal.limit, since=moment, until=until)

    def end_future_cooldowns(self, moment: datetime) -> list[int]:
        """End cooldowns by the minute that start after `moment`, and return their projects.

        They exist after the clock was set back, and nobody knows how much of them is over. Cooldowns by the day end by
        the calendar and stay.
        """
        by_minute = (Window.MINUTE, Window.TOKENS, Window.UNKNOWN)
        future = self.filter(since__gt=moment, until__isnull=False, window__in=by_minute)
        projects = list(future.values_list("project", flat=True))
        future.update(since=moment, until=moment)
        return projects

    def overlooked(self, moment: datetime) -> list[int]:
        """Return the projects whose quotas ignore an event in force, since the clock was set back into its day."""
        has_no_cooldown = Q(project__quotas__model_name=F("model_name"), project__quotas__cooldown_until=None)
        events = self.in_force(moment).filter(has_no_cooldown, until__isnull=False)
        return list(events.values_list("project", flat=True))


WINDOWS = [
    (Window.DAY.value, _("requests or tokens per day")),
    (Window.MINUTE.value, _("requests per minute")),
    (Window.TOKENS.value, _("input tokens per minute")),
    (Window.NONE.value, _("the project has no access to this model")),
    (Window.CREDITS.value, _("out of credits, or spending cap reached")),
    (Window.UNKNOWN.value, _("no reason given")),
]


class ExhaustionEvent(models.Model):
    """A quota that a project exceeded, by the minute or by the day."""

    # The key that found out. The event holds for all keys of its project.
    key = models.ForeignKey("proxy.ApiKey", on_delete=models.PROTECT, verbose_name=_("key"), related_name="exhaustion")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, verbose_name=_("project"), related_name="exhaustion")
    # ALL_MODELS when the project is out of credits.
    model_name = models.CharField(_("model name"), max_length=200, blank=True)
    window = models.CharField(_("window"), max_length=10, choices=WINDOWS)
    limit = models.PositiveBigIntegerField(_("limit"), null=True, help_text=_("The limit reported by Google, if any."))
    since = models.DateTimeField(_("since"))
    until = models.DateTimeField(_("until"), null=True, help_text=_("Empty until the key is revived manually."))

    objects = ExhaustionEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("exhaustion event")
        verbose_name_plural = _("exhaustion events")
        indexes = [
            models.Index(fields=["until"], name="exhaustion_until"),
            models.Index(fields=["since"], name="exhaustion_since"),
        ]

    def __str__(self) -> str:
        what = {
            "key": self.key,
            "model": self.model_name or gettext("all models"),
            "since": f"{self.since:%Y-%m-%d %H:%M}",
        }
        return gettext("%(key)s, %(model)s, since %(since)s") % what
