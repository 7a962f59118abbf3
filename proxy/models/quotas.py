"""The limits of a project for a model, its recent use, and so its place in the rotation of that model.

The scheduler (`ledger/scheduler.py`) reads these rows: one index lookup finds the project with most left, however many
are spent. All but the limits is derived: `recompute` computes it from keys, exhaustion events and recent uses.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.db import connection, models, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import BigIntegerField, F, Q, Sum
from django.db.models.functions import Coalesce, Least, NullIf
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from proxy.models.exhaustion import WITH_LIMITS, ExhaustionEvent
from proxy.models.projects import CHUNK, Project

if TYPE_CHECKING:  # a text that may be translated late
    from django_stubs_ext import StrOrPromise

# The model of calls that name none, and the rotation of those that spend no quota: lists, files, counting tokens.
NO_MODEL = "-"
# More than any limit: what is left where none is known.
UNLIMITED = 2**40
_MOST_ROTATIONS = 100


def lock_quotas(cursor: CursorWrapper) -> None:
    """Have all quotas to oneself until the transaction ends. On SQLite, BEGIN IMMEDIATE has done that already."""
    if cursor.db.vendor == "postgresql":
        cursor.execute("SELECT pg_advisory_xact_lock(1131377993)")


class GeminiModelQuerySet(models.QuerySet["GeminiModel"]):
    """Models that were asked for."""

    def begin(self, model_name: str, *, is_known: bool = True) -> None:
        """Give `model_name` a rotation of its own, in the order of the common one, if it has none."""
        rotation, is_new = self.get_or_create(model_name=model_name, defaults={"is_known": is_known})
        if not is_new:
            if is_known > rotation.is_known:
                self.mark_known(model_name)
            return
        # One statement: the ledger does this while requests wait, and there may be ten thousand projects.
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO proxy_quota "
                "(project_id, model_name, is_barred, is_open, opens_at, cooldown_until, last_used, "
                "most_in_a_minute, minute_requests, minute_tokens, day_requests, refusals_in_a_row) "
                "SELECT project_id, %s, is_barred, is_open, opens_at, cooldown_until, last_used, 0, 0, 0, 0, 0 "
                "FROM proxy_quota WHERE model_name = ''",
                [model_name],
            )

    def begin_if_room(self, model_name: str) -> bool:
        """Begin one unless there are a hundred: clients can ask for models that do not exist."""
        has_room = self.count() < _MOST_ROTATIONS
        if has_room:
            self.begin(model_name, is_known=False)
        return has_room

    def drop_unknown(self, model_name: str) -> None:
        """End the rotation of a model that Google does not know, unless it was known before."""
        if self.filter(model_name=model_name, is_known=False).delete()[0]:
            Quota.objects.filter(model_name=model_name).delete()

    def mark_known(self, model_name: str) -> None:
        """Write that there is such a model."""
        self.filter(model_name=model_name).update(is_known=True)

    def spent_by(self, model_name: str, told: str) -> str:
        """Return the model whose quotas `model_name` spends: the one that Google told, "" if it told none.

        From then on both share one rotation, for `gemini-flash-latest` is another model from time to time.
        """
        self.begin(model_name)
        if told:
            self.begin(told)
            counts_as = "" if told == model_name else told
            if self.filter(model_name=model_name).exclude(counts_as=counts_as).update(counts_as=counts_as):
                Quota.objects.filter(model_name=told).recount()
        return told or self.get(model_name=model_name).counts_as or model_name


class GeminiModel(models.Model):
    """A model that was asked for, and how overloaded it was recently."""

    model_name = models.CharField(max_length=200, unique=True)
    # Google gave an answer that shows that the model exists.
    is_known = models.BooleanField(default=False)
    # The model whose quotas are spent, where Google named another one (`gemini-flash-latest`); "" for its own.
    counts_as = models.CharField(max_length=200, blank=True)
    # Waves of answers like 503 in a row.
    overloads = models.PositiveSmallIntegerField(default=0)
    # No request is sent before, by the clock of `Use`.
    backs_off_until = models.BigIntegerField(default=0)

    objects = GeminiModelQuerySet.as_manager()

    class Meta:
        db_table = "proxy_rotation"  # its former name

    def __str__(self) -> str:
        return self.model_name


class QuotaQuerySet(models.QuerySet["Quota"]):
    """Quotas of projects."""

    def of_models(self) -> Self:
        """Those of models; the others stand for calls that spend no quota, and for models without a rotation."""
        return self.exclude(model_name__in=["", NO_MODEL])

    def set_limits(self, moment: datetime, **limits: int | None) -> None:
        """Write limits, by the names of their fields, and what follows from them.

        Rests that the old limits led to are over: if there is no room after all, it is known with the next claim.
        """
        with transaction.atomic():
            quotas = list(self.select_related("project"))
            for quota in quotas:
                events = ExhaustionEvent.objects.filter(project=quota.project, model_name=quota.model_name)
                events.in_force(moment).filter(window__in=WITH_LIMITS).update(until=moment)
            self.update(**limits)
            Quota.objects.recompute((quota.project_id for quota in quotas), moment)

    def forget_learned(self, moment: datetime) -> None:
        """Forget what Google told: it will be learned again, with a refusal for each limit."""
        self.set_limits(moment, **dict.fromkeys(LEARNED_NAMES), most_in_a_minute=0)

    def recount(self) -> None:
        """Have the day counted anew, from what its keys did: they became others, or did more than was known."""
        self.update(day=None)

    def merge(self, source: Project, target: Project) -> None:
        """Let `target` have what is known of `source`, which was the same project all the time."""
        for quota in self.filter(project=source).of_models():
            known, _ = self.get_or_create(project=target, model_name=quota.model_name)
            for name in LIMIT_NAMES:
                setattr(known, name, getattr(known, name) if getattr(known, name) is not None else getattr(quota, name))
            known.most_in_a_minute = max(known.most_in_a_minute, quota.most_in_a_minute)
            known.save(update_fields=[*LIMIT_NAMES, "most_in_a_minute"])
            for use in quota.uses.all():
                add = {"requests": F("requests") + use.requests, "tokens": F("tokens") + use.tokens}
                if not known.uses.filter(tenth=use.tenth).update(**add):
                    known.uses.create(tenth=use.tenth, requests=use.requests, tokens=use.tokens)

    def recompute(self, projects: Iterable[int], moment: datetime, model_name: str | None = None) -> None:
        """Recompute what follows from the keys of `projects`, their limits and exhaustion events; keep the order.

        Of all models, or of one that has a rotation. A few queries for every 500 projects. Those with limits are closed
        and due, so that the next claim judges them.
        """
        names = ["", *GeminiModel.objects.values_list("model_name", flat=True)] if model_name is None else [model_name]
        ids = sorted(set(projects))
        for start in range(0, len(ids), CHUNK):
            with transaction.atomic(), connection.cursor() as cursor:
                lock_quotas(cursor)
                self._recompute(ids[start : start + CHUNK], names, moment)

    def _recompute(self, projects: list[int], names: list[str], moment: datetime) -> None:
        there = set(self.filter(project__in=projects, model_name__in=names).values_list("project", "model_name"))
        missing = ((project, name) for project in projects for name in names if (project, name) not in there)
        self.bulk_create(Quota(project_id=project, model_name=name) for project, name in missing)
        is_usable = Q(keys__is_enabled=True, keys__fault="", keys__deleted_at=None)
        usable = set(Project.objects.filter(is_usable, id__in=projects).values_list("id", flat=True))
        rests = defaultdict(list)
        for event in ExhaustionEvent.objects.filter(project__in=projects).in_force(moment):
            rests[event.project_id].append(event)
        quotas = list(self.filter(project__in=projects, model_name__in=names).select_for_update())
        counts = {
            quota: (requests, tokens)
            for quota, requests, tokens in Use.objects.filter(quota__project__in=projects, quota__model_name__in=names)
            .values_list("quota")
            .annotate(Sum("requests"), Sum("tokens"))
        }
        adapt = connection.ops.adapt_datetimefield_value
        rows = []
        for quota in quotas:
            untils = [e.until for e in rests[quota.project_id] if e.model_name in ("", quota.model_name)]
            is_barred = quota.project_id not in usable or None in untils
            until = max((until for until in untils if until), default=None)
            is_open = not (is_barred or until or quota.has_limits)
            opens_at = None if is_open or is_barred else until or moment
            minute = counts.get(quota.pk, (0, 0))
            rows.append((is_barred, is_open, adapt(opens_at), adapt(until), *minute, quota.pk))
        # Not bulk_update, which takes seconds for 500 projects, while requests wait.
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE proxy_quota SET is_barred = %s, is_open = %s, opens_at = %s, cooldown_until = %s, "
                "minute_requests = %s, minute_tokens = %s WHERE id = %s",
                rows,
            )


def _limit(label: "StrOrPromise") -> "models.PositiveBigIntegerField[int | None, int | None]":
    help_text = _("Set by hand, it wins over what Google told. Empty: what Google told, if anything.")
    return models.PositiveBigIntegerField(label, null=True, blank=True, help_text=help_text)


def _learned(label: "StrOrPromise") -> "models.PositiveBigIntegerField[int | None, int | None]":
    return models.PositiveBigIntegerField(label, null=True, blank=True, editable=False)


def limit_in_force(name: str) -> Coalesce:
    """Return the limit of this name that holds: set by hand, or else learned."""
    return Coalesce(name, f"learned_{name}")


class Quota(models.Model):
    """Limits of a project for a model, its use of late, and its place in the rotation of that model."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="quotas")
    # "": the common rotation, of models that have none of their own.
    model_name = models.CharField(_("model"), max_length=200, blank=True)

    # A limit set by hand wins over the learned one, which Google reported with a refusal.
    requests_per_minute = _limit(_("requests a minute"))
    input_tokens_per_minute = _limit(_("input tokens a minute"))
    requests_per_day = _limit(_("requests a day"))
    learned_requests_per_minute = _learned(_("requests a minute, as Google told"))
    learned_input_tokens_per_minute = _learned(_("input tokens a minute, as Google told"))
    learned_requests_per_day = _learned(_("requests a day, as Google told"))
    # The most requests that were accepted in a minute: the proven room, where no limit is known.
    most_in_a_minute = models.PositiveIntegerField(default=0, editable=False)

    minute_requests = models.IntegerField(default=0, editable=False)
    minute_tokens = models.BigIntegerField(default=0, editable=False)
    day = models.DateField(null=True, editable=False)
    day_requests = models.IntegerField(default=0, editable=False)

    # Does not open by itself.
    is_barred = models.BooleanField(default=False, editable=False)
    # May be taken now.
    is_open = models.BooleanField(default=False, editable=False)
    # When a closed one is looked at again.
    opens_at = models.DateTimeField(null=True, editable=False)
    # What its exhaustion events say.
    cooldown_until = models.DateTimeField(null=True, editable=False)
    # By the clock of `Use`.
    last_used = models.BigIntegerField(default=0, editable=False)
    refusals_in_a_row = models.PositiveSmallIntegerField(default=0, editable=False)
    # How many requests are left: the order of claims.
    room = models.GeneratedField(
        expression=Least(
            # Below 0 where the limit is unknown and more requests are in flight than were ever accepted.
            Coalesce(limit_in_force("requests_per_minute"), F("most_in_a_minute")) - F("minute_requests"),
            Coalesce(limit_in_force("requests_per_day") - F("day_requests"), UNLIMITED),
            # So many more like those of the last minute.
            Coalesce(
                (limit_in_force("input_tokens_per_minute") - F("minute_tokens"))
                * F("minute_requests")
                / NullIf(F("minute_tokens"), 0),
                UNLIMITED,
            ),
        ),
        output_field=BigIntegerField(),
        db_persist=True,
    )

    objects = QuotaQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "model_name"], name="one_quota_of_project_and_model")]
        indexes = [
            models.Index("model_name", F("room").desc(), "last_used", condition=Q(is_open=True), name="quota_rotation"),
            models.Index(fields=["model_name", "opens_at"], condition=Q(is_open=False), name="quota_openings"),
        ]

    def __str__(self) -> str:
        what = {"model": self.model_name or gettext("no model"), "project": self.project}
        return gettext("%(model)s, project %(project)s") % what

    @property
    def has_limits(self) -> bool:
        return any(getattr(self, name) is not None for name in LIMIT_NAMES)


SET_NAMES = ("requests_per_minute", "input_tokens_per_minute", "requests_per_day")
LEARNED_NAMES = tuple(f"learned_{name}" for name in SET_NAMES)
LIMIT_NAMES = SET_NAMES + LEARNED_NAMES


class Use(models.Model):
    """How often a quota was used in a tenth of a second, by the moment of the claims. Kept for a minute.

    tenth: tenths of a second; on SQLite since the machine was started (`ledger/clock.py`), elsewhere since 1970, for
    all nodes together. tokens: of the input, estimated until the answers tell.
    """

    pk = models.CompositePrimaryKey("quota_id", "tenth")  # no id: each claim writes a row, each index is a page more
    quota = models.ForeignKey(Quota, on_delete=models.CASCADE, related_name="uses", db_index=False)
    tenth = models.BigIntegerField()
    requests = models.IntegerField()
    tokens = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["tenth"], name="use_by_tenth")]

    def __str__(self) -> str:
        return f"{self.quota_id} at {self.tenth}: {self.requests}"
