"""A project's limits for a model and its recent use, which give it a place in the rotation of that model.

The scheduler (`ledger/scheduler.py`) reads these rows: one index lookup finds the project with the most room, however
many are spent. Everything except the limits is derived: `recompute` computes it from keys, exhaustion events and recent
uses.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Self

from django.db import connection, models, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import BigIntegerField, F, Q, Sum
from django.db.models.functions import Coalesce, Least, NullIf
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django_stubs_ext import StrOrPromise

from proxy.models.exhaustion import ALL_MODELS, WITH_LIMITS, ExhaustionEvent
from proxy.models.projects import CHUNK, Project

# The model of calls that name none, and the rotation of calls that spend no quota: lists, files, counting tokens.
NO_MODEL = "-"
# The rotation of models without one of their own.
COMMON_ROTATION = ""
# `GeminiModel.counts_as` of a model that spends its own quotas.
ITSELF = ""
# The room of a quota without a known limit: more than any limit.
UNLIMITED = 2**40
# The advisory lock of all quotas on PostgreSQL. An arbitrary number.
QUOTA_LOCK = 1131377993
_MOST_ROTATIONS = 100


def lock_quotas(cursor: CursorWrapper) -> None:
    """Lock all quotas until the transaction ends. On SQLite, BEGIN IMMEDIATE has done so already."""
    if cursor.db.vendor == "postgresql":
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [QUOTA_LOCK])


class GeminiModelQuerySet(models.QuerySet["GeminiModel"]):
    """Models that clients have requested."""

    def begin(self, model_name: str, *, is_known: bool = True) -> None:
        """Give `model_name` a rotation of its own, in the order of the common one, unless it has one."""
        model, is_new = self.get_or_create(model_name=model_name, defaults={"is_known": is_known})
        if not is_new:
            if is_known > model.is_known:
                self.mark_known(model_name)
            return
        # One statement, since requests are waiting and there may be ten thousand projects.
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO proxy_quota "
                "(project_id, model_name, is_barred, is_open, opens_at, cooldown_until, last_used, "
                "most_in_a_minute, minute_requests, minute_tokens, day_requests, refusals_in_a_row) "
                "SELECT project_id, %s, is_barred, is_open, opens_at, cooldown_until, last_used, 0, 0, 0, 0, 0 "
                "FROM proxy_quota WHERE model_name = %s ORDER BY id",
                [model_name, COMMON_ROTATION],
            )

    def begin_if_room(self, model_name: str) -> bool:
        """Begin a rotation unless there are a hundred, since clients can request models that do not exist."""
        has_room = self.count() < _MOST_ROTATIONS
        if has_room:
            self.begin(model_name, is_known=False)
        return has_room

    def drop_unknown(self, model_name: str) -> None:
        """Delete the rotation of a model that Google does not know, unless it was known before."""
        if self.filter(model_name=model_name, is_known=False).delete()[0]:
            Quota.objects.filter(model_name=model_name).delete()

    def mark_known(self, model_name: str) -> None:
        """Record that the model exists."""
        self.filter(model_name=model_name).update(is_known=True)

    def spent_by(self, model_name: str, reported: str) -> str:
        """Return the model whose quotas `model_name` spends. reported: the one named by Google, "" if it named none.

        From then on both share one rotation. Aliases such as `gemini-flash-latest` change their model over time.
        """
        self.begin(model_name)
        if reported:
            self.begin(reported)
            counts_as = ITSELF if reported == model_name else reported
            if self.filter(model_name=model_name).exclude(counts_as=counts_as).update(counts_as=counts_as):
                Quota.objects.filter(model_name=reported).recount()
        return reported or self.get(model_name=model_name).counts_as or model_name


class GeminiModel(models.Model):
    """A model that clients have requested, and its current overload."""

    model_name = models.CharField(max_length=200, unique=True)
    # An answer from Google has shown that the model exists.
    is_known = models.BooleanField(default=False)
    # The model whose quotas are spent: another one if Google has named it (`gemini-flash-latest`), or ITSELF.
    counts_as = models.CharField(max_length=200, blank=True)
    # Waves of 503 in a row.
    overloads = models.PositiveSmallIntegerField(default=0)
    # No request is sent before this time, by the clock of `Use`.
    backs_off_until = models.BigIntegerField(default=0)

    objects = GeminiModelQuerySet.as_manager()

    class Meta:
        db_table = "proxy_rotation"  # the model's former name

    def __str__(self) -> str:
        return self.model_name


class QuotaQuerySet(models.QuerySet["Quota"]):
    """Quotas of projects."""

    def of_models(self) -> Self:
        """Quotas of real models, without NO_MODEL and the common rotation."""
        return self.exclude(model_name__in=[COMMON_ROTATION, NO_MODEL])

    def set_limits(self, moment: datetime, **limits: int | None) -> None:
        """Write limits, by field name, and recompute what depends on them.

        Cooldowns caused by the old limits end. If there is no room after all, the next claim finds out.
        """
        with transaction.atomic():
            quotas = list(self.select_related("project"))
            for quota in quotas:
                events = ExhaustionEvent.objects.filter(project=quota.project, model_name=quota.model_name)
                events.in_force(moment).filter(window__in=WITH_LIMITS).update(until=moment)
            self.update(**limits)
            Quota.objects.recompute((quota.project_id for quota in quotas), moment)

    def forget_learned(self, moment: datetime) -> None:
        """Forget the limits reported by Google. They are learned again, at the cost of one refusal each."""
        self.set_limits(moment, **dict.fromkeys(LEARNED_NAMES), most_in_a_minute=0)

    def recount(self) -> None:
        """Have the next claim count the day again. Needed when the keys of a project or their usage change."""
        self.update(day=None)

    def merge(self, source: Project, target: Project) -> None:
        """Copy what is known about `source` to `target`, which turned out to be the same project."""
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
        """Recompute what depends on the keys of `projects`, their limits and exhaustion events.

        For all models, or one. Quotas keep their place in the rotation. Those with limits are closed and due, so that
        the next claim rechecks them. A few queries per 500 projects.
        """
        if model_name is None:
            names = [COMMON_ROTATION, *GeminiModel.objects.values_list("model_name", flat=True)]
        else:
            names = [model_name]
        ids = sorted(set(projects))
        for start in range(0, len(ids), CHUNK):
            with transaction.atomic(), connection.cursor() as cursor:
                lock_quotas(cursor)
                self._recompute(ids[start : start + CHUNK], names, moment)

    def _recompute(self, projects: list[int], names: list[str], moment: datetime) -> None:
        existing = set(self.filter(project__in=projects, model_name__in=names).values_list("project", "model_name"))
        missing = ((project, name) for project in projects for name in names if (project, name) not in existing)
        self.bulk_create(Quota(project_id=project, model_name=name) for project, name in missing)
        is_usable = Q(keys__is_enabled=True, keys__fault="", keys__deleted_at=None)
        usable = set(Project.objects.filter(is_usable, id__in=projects).values_list("id", flat=True))
        events = defaultdict(list)
        for event in ExhaustionEvent.objects.filter(project__in=projects).in_force(moment):
            events[event.project_id].append(event)
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
            untils = [e.until for e in events[quota.project_id] if e.model_name in (ALL_MODELS, quota.model_name)]
            is_barred = quota.project_id not in usable or None in untils
            until = max((until for until in untils if until), default=None)
            is_open = not (is_barred or until or quota.has_limits)
            opens_at = None if is_open or is_barred else until or moment
            minute = counts.get(quota.pk, (0, 0))
            rows.append((is_barred, is_open, adapt(opens_at), adapt(until), *minute, quota.pk))
        # bulk_update takes seconds for 500 projects, while requests wait.
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE proxy_quota SET is_barred = %s, is_open = %s, opens_at = %s, cooldown_until = %s, "
                "minute_requests = %s, minute_tokens = %s WHERE id = %s",
                rows,
            )


def _limit(label: StrOrPromise) -> models.PositiveBigIntegerField[int | None, int | None]:
    help_text = _("A limit that you set takes precedence. If empty, the limit reported by Google applies, if any.")
    return models.PositiveBigIntegerField(label, null=True, blank=True, help_text=help_text)


def _learned(label: StrOrPromise) -> models.PositiveBigIntegerField[int | None, int | None]:
    return models.PositiveBigIntegerField(label, null=True, blank=True, editable=False)


def limit_in_force(name: str) -> Coalesce:
    """Return the expression for the limit in force: the one that was set, or else the learned one."""
    return Coalesce(name, f"learned_{name}")


class Quota(models.Model):
    """A project's limits for a model, its recent use, and its place in the rotation of that model."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, verbose_name=_("project"), related_name="quotas")
    # Or NO_MODEL, or COMMON_ROTATION.
    model_name = models.CharField(_("model"), max_length=200, blank=True)

    # Set by people. A limit that was set wins over the learned one.
    requests_per_minute = _limit(_("requests per minute"))
    input_tokens_per_minute = _limit(_("input tokens per minute"))
    requests_per_day = _limit(_("requests per day"))
    # Reported by Google with a refusal.
    learned_requests_per_minute = _learned(_("requests per minute, reported by Google"))
    learned_input_tokens_per_minute = _learned(_("input tokens per minute, reported by Google"))
    learned_requests_per_day = _learned(_("requests per day, reported by Google"))
    # The most requests that were ever accepted in a minute: the proven room while no limit is known.
    most_in_a_minute = models.PositiveIntegerField(default=0, editable=False)

    # The sums of its rows in `Use`.
    minute_requests = models.IntegerField(default=0, editable=False)
    minute_tokens = models.BigIntegerField(default=0, editable=False)
    # The quota day that `day_requests` is about.
    day = models.DateField(null=True, editable=False)
    day_requests = models.IntegerField(default=0, editable=False)

    # Closed until something changes, such as a key, a limit, or a manual revival.
    is_barred = models.BooleanField(default=False, editable=False)
    # Can be claimed now.
    is_open = models.BooleanField(default=False, editable=False)
    # When a closed quota is rechecked.
    opens_at = models.DateTimeField(null=True, editable=False)
    # The end of its exhaustion events.
    cooldown_until = models.DateTimeField(null=True, editable=False)
    # By the clock of `Use`.
    last_used = models.BigIntegerField(default=0, editable=False)
    # 429s without details.
    refusals_in_a_row = models.PositiveSmallIntegerField(default=0, editable=False)
    # How many requests are left; claims go to the quota with the most.
    room = models.GeneratedField(
        expression=Least(
            # Negative when the limit is unknown and more requests are in flight than were ever accepted.
            Coalesce(limit_in_force("requests_per_minute"), F("most_in_a_minute")) - F("minute_requests"),
            Coalesce(limit_in_force("requests_per_day") - F("day_requests"), UNLIMITED),
            # How many more requests of the average size of the last minute.
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
        verbose_name = _("quota")
        verbose_name_plural = _("quotas")
        constraints = [models.UniqueConstraint(fields=["project", "model_name"], name="one_quota_of_project_and_model")]
        indexes = [
            models.Index("model_name", F("room").desc(), "last_used", condition=Q(is_open=True), name="quota_rotation"),
            models.Index(fields=["model_name", "opens_at"], condition=Q(is_open=False), name="quota_openings"),
        ]

    def __str__(self) -> str:
        what = {"model": self.model_name or gettext("no model"), "project": self.project}
        return gettext("%(model)s, project %(project)s") % what

    def limit_in_force(self, name: str) -> int | None:
        """Return the limit in force, as the function `limit_in_force` does in a query."""
        limit: int | None = getattr(self, name)
        learned: int | None = getattr(self, f"learned_{name}")
        return learned if limit is None else limit

    @property
    def has_limits(self) -> bool:
        return any(getattr(self, name) is not None for name in LIMIT_NAMES)


SET_NAMES = ("requests_per_minute", "input_tokens_per_minute", "requests_per_day")
LEARNED_NAMES = tuple(f"learned_{name}" for name in SET_NAMES)
LIMIT_NAMES = SET_NAMES + LEARNED_NAMES


class Use(models.Model):
    """How much a quota was used in a tenth of a second, by the time of the claims. Kept for a minute."""

    # No id: each claim writes a row, and each index costs another page.
    pk = models.CompositePrimaryKey("quota_id", "tenth")
    quota = models.ForeignKey(Quota, on_delete=models.CASCADE, related_name="uses", db_index=False)
    # Tenths of a second: on SQLite since the machine booted (`ledger/clock.py`), on PostgreSQL since 1970.
    tenth = models.BigIntegerField()
    requests = models.IntegerField()
    # Input tokens: an estimate until the answer gives the true number.
    tokens = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["tenth"], name="use_by_tenth")]

    def __str__(self) -> str:
        return f"{self.quota_id} at {self.tenth}: {self.requests}"
