"""Quotas that ran out: what, since when, until when."""

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

# Those that are told by how much a project may ask, and open again by themselves.
WITH_LIMITS = (Window.DAY, Window.MINUTE, Window.TOKENS)


class ExhaustionEventQuerySet(models.QuerySet["ExhaustionEvent"]):
    """What ran out, and until when."""

    def in_force(self, moment: datetime) -> Self:
        """Events that keep a key from being asked at `moment`."""
        return self.filter(Q(until=None) | Q(until__gt=moment))

    def about(self, model_name: str) -> Self:
        """Events that concern a model, those of all models among them; "": every event."""
        return self.filter(model_name__in=["", model_name]) if model_name else self.all()

    def record(
        self, key: "ApiKey", model_name: str, refusal: Refusal, moment: datetime, until: datetime | None
    ) -> None:
        """Write down that a quota ran out; what is still in force for the same reason is prolonged instead."""
        what = {"key": key, "project": key.project, "model_name": model_name, "window": refusal.window}
        if not self.in_force(moment).filter(**what).update(until=until, limit=refusal.limit):
            self.create(**what, limit=refusal.limit, since=moment, until=until)

    def end_those_to_come(self, moment: datetime) -> list[int]:
        """End rests by the minute that would begin after `moment`, since the clock was set back; return their projects.

        How much of them is over nobody knows. Days end by the calendar, whatever the clock says.
        """
        by_minute = (Window.MINUTE, Window.TOKENS, Window.UNKNOWN)
        to_come = self.filter(since__gt=moment, until__isnull=False, window__in=by_minute)
        projects = list(to_come.values_list("project", flat=True))
        to_come.update(since=moment, until=moment)
        return projects

    def overlooked(self, moment: datetime) -> list[int]:
        """Return the projects that are not resting at `moment`, though they should: their day, once over, is back."""
        not_resting = Q(project__quotas__model_name=F("model_name"), project__quotas__cooldown_until=None)
        return list(self.in_force(moment).filter(not_resting, until__isnull=False).values_list("project", flat=True))


WINDOWS = [
    (Window.DAY.value, _("requests or tokens a day")),
    (Window.MINUTE.value, _("requests a minute")),
    (Window.TOKENS.value, _("input tokens a minute")),
    (Window.NONE.value, _("the project may not use this model")),
    (Window.CREDITS.value, _("credits spent, or a spending cap")),
    (Window.UNKNOWN.value, _("no reason given")),
]


class ExhaustionEvent(models.Model):
    """A quota that ran out: of one model, or of all ("") when the money ran out. Holds for the key's whole project."""

    key = models.ForeignKey("proxy.ApiKey", on_delete=models.PROTECT, related_name="exhaustion")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="exhaustion")
    model_name = models.CharField(max_length=200, blank=True)
    window = models.CharField(max_length=10, choices=WINDOWS)
    limit = models.PositiveBigIntegerField(null=True, help_text=_("The limit that Google named, if it did."))
    since = models.DateTimeField()
    until = models.DateTimeField(null=True, help_text=_("Empty: until somebody revives the key."))

    objects = ExhaustionEventQuerySet.as_manager()

    class Meta:
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
