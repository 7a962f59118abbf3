"""The keys of the pool."""

from datetime import datetime, timedelta
from typing import Self

from django.db import connection, models, transaction
from django.db.models import Count, Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from proxy.gemini.refusals import Fault
from proxy.models.exhaustion import ExhaustionEvent
from proxy.models.projects import CHUNK, Project
from proxy.models.quotas import Quota, lock_quotas
from proxy.security.masking import last_four

# When a key that turned bad is checked first. The pause doubles with each check, up to the longest.
FIRST_CHECK_AFTER = timedelta(minutes=10)
LONGEST_CHECK_PAUSE = timedelta(days=1)


def key_label(key_id: int, name: str, secret: str | None) -> str:
    """Return a key's name in logs and headers: its name or number, and the last four characters of its secret."""
    return f"{name or f'key {key_id}'} {last_four(secret) if secret else '(deleted)'}"


def shown_label(key_id: int, name: str, secret: str | None) -> str:
    """Return a key's name on pages: as `key_label`, in the reader's language."""
    name = name or gettext("key %(number)s") % {"number": key_id}
    four = last_four(secret) if secret else gettext("(deleted)")
    return f"{name} {four}"


FAULTS = [
    (Fault.INVALID.value, _("invalid")),
    (Fault.EXPIRED.value, _("expired")),
    (Fault.SUSPENDED.value, _("suspended")),
    (Fault.LEAKED.value, _("leaked")),
    (Fault.DENIED.value, _("denied")),
    (Fault.BLOCKED.value, _("blocked")),
]


class KeyState(models.TextChoices):
    """The state of a key as a whole. Whether it is rate-limited depends on the model."""

    USABLE = "usable", _("usable")
    DISABLED = "disabled", _("disabled")
    BAD = "bad", _("bad")
    DELETED = "deleted", _("deleted")


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """Keys of the pool."""

    def usable(self) -> Self:
        """Keys in the rotation: enabled, and not bad."""
        return self.filter(is_enabled=True, fault="", deleted_at=None)

    def present(self) -> Self:
        """Keys that are not deleted."""
        return self.filter(deleted_at=None)

    def bad(self) -> Self:
        """Keys that Google rejects."""
        return self.present().exclude(fault="")

    def disabled(self) -> Self:
        """Keys that were disabled. Those that are also bad count as bad."""
        return self.filter(is_enabled=False, fault="", deleted_at=None)

    def count_by_state(self) -> dict[KeyState, int]:
        """Return how many keys there are in each state, in one query."""
        is_present, is_good = Q(deleted_at=None), Q(fault="")
        states = {
            KeyState.USABLE: is_present & is_good & Q(is_enabled=True),
            KeyState.DISABLED: is_present & is_good & Q(is_enabled=False),
            KeyState.BAD: is_present & ~is_good,
            KeyState.DELETED: ~is_present,
        }
        counts = self.aggregate(**{state.value: Count("id", filter=condition) for state, condition in states.items()})
        return {state: counts[state.value] for state in states}

    def limited(self, moment: datetime) -> Self:
        """Keys whose project is rate-limited or exhausted for at least one model."""
        return self.filter(project__in=ExhaustionEvent.objects.in_force(moment).values("project"))

    def enable(self, moment: datetime) -> int:
        return self.change(moment, is_enabled=True)

    def disable(self, moment: datetime) -> int:
        return self.change(moment, is_enabled=False)

    def mark_bad(self, fault: Fault, reason: str, moment: datetime) -> int:
        """Take keys out of the rotation with Google's reason. A key that is already bad keeps its first reason."""
        values = {"fault": fault, "fault_reason": reason[:300], "fault_since": moment}
        return self.filter(fault="").change(moment, **values, next_check=moment + FIRST_CHECK_AFTER)

    def put_off_check(self, moment: datetime) -> int:
        """Schedule the next check of bad keys for when they have been bad twice as long, at most a day from now."""
        put_off = 0
        for key in self.exclude(fault_since=None):
            since = key.fault_since or moment
            pause = min(max(moment - since, FIRST_CHECK_AFTER), LONGEST_CHECK_PAUSE)
            put_off += self.filter(pk=key.pk).update(next_check=moment + pause)
        return put_off

    def take_due_checks(self, moment: datetime, at_most: int = 100) -> list["ApiKey"]:
        """Return the bad keys whose check is due, and schedule their next one, so that each goes to a single caller."""
        with transaction.atomic():
            # Keys without a time turned bad before there were checks.
            due = self.bad().filter(Q(next_check=None) | Q(next_check__lte=moment)).select_for_update()
            keys = list(due.order_by("next_check", "id")[:at_most])
            ApiKey.objects.filter(id__in=[key.pk for key in keys]).put_off_check(moment)
        return keys

    def clear_fault(self, moment: datetime) -> int:
        """Return keys that work again to the rotation."""
        return self.change(moment, fault="", fault_reason="", fault_since=None, next_check=None)

    def revive(self, moment: datetime) -> int:
        """Return keys to the rotation: clear their faults, and end the cooldowns of their projects."""
        with transaction.atomic():
            projects = list(self.values_list("project", flat=True))
            ExhaustionEvent.objects.filter(project__in=projects).in_force(moment).update(until=moment)
            Quota.objects.filter(project__in=projects).update(refusals_in_a_row=0)
            return self.clear_fault(moment)

    def forget(self, moment: datetime) -> int:
        """Delete keys: the secret is gone for good, the history stays under the key's name."""
        return self.change(moment, secret=None, deleted_at=moment)

    def change(self, moment: datetime, **values: object) -> int:
        """Write `values` to these keys and recompute their quotas; return how many keys there were."""
        changed = 0
        with transaction.atomic():
            ids = list(self.values_list("id", flat=True))
            for start in range(0, len(ids), CHUNK):
                keys = ApiKey.objects.filter(id__in=ids[start : start + CHUNK])
                changed += keys.update(**values)
                Quota.objects.recompute(keys.values_list("project", flat=True), moment)
        return changed

    def move_to(self, name: str, moment: datetime) -> int:
        """Move these keys to the project with this name ("" if unknown); return how many moved.

        What is known about a project without a name moves with its key: it was the same project all along.
        """
        with transaction.atomic(), connection.cursor() as cursor:
            lock_quotas(cursor)  # before reading, since others may move keys too
            moved = list(self.exclude(project__name=name).select_related("project"))
            for key in moved:
                project = Project.objects.named(name)
                if not key.project.name:
                    ExhaustionEvent.objects.filter(project=key.project).update(project=project)
                    Quota.objects.merge(key.project, project)
                ApiKey.objects.filter(pk=key.pk).update(project=project)
                Quota.objects.filter(project__in=[key.project_id, project.pk]).recount()
                Quota.objects.recompute([key.project_id, project.pk], moment)
            Project.objects.filter(id__in=[key.project_id for key in moved]).drop_empty()
        return len(moved)


class ApiKey(models.Model):
    """A Gemini API key in the pool, and the Google project that it belongs to."""

    name = models.CharField(_("name"), max_length=100, blank=True, help_text=_("A name for this key. Optional."))
    secret = models.CharField(
        max_length=300,
        unique=True,
        null=True,
        editable=False,
        help_text=_("The key itself, as shown in Google AI Studio. Nobody can read it here again."),
    )
    project = models.ForeignKey(Project, on_delete=models.PROTECT, verbose_name=_("project"), related_name="keys")
    is_enabled = models.BooleanField(_("enabled"), default=True, help_text=_("Only enabled keys are in the rotation."))
    fault = models.CharField(max_length=20, blank=True, editable=False, choices=FAULTS)
    fault_reason = models.CharField(max_length=300, blank=True, editable=False)
    fault_since = models.DateTimeField(null=True, editable=False)
    next_check = models.DateTimeField(null=True, editable=False, help_text=_("When a bad key is checked again."))
    last_used = models.DateTimeField(_("last used"), null=True, editable=False, help_text=_("Accurate to a minute."))
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        constraints = [
            models.CheckConstraint(
                condition=Q(deleted_at=None, secret__isnull=False) | Q(deleted_at__isnull=False, secret=None),
                name="a_deleted_key_has_no_secret",
            ),
        ]
        indexes = [models.Index(fields=["next_check"], condition=~Q(fault=""), name="key_checks")]

    def __str__(self) -> str:
        return self.label

    @property
    def masked(self) -> str:
        """The last four characters of the secret, or "deleted"."""
        return last_four(self.secret) if self.secret else gettext("deleted")

    @property
    def label(self) -> str:
        """The key's name on pages: name or number, and last four characters."""
        return shown_label(self.pk, self.name, self.secret)

    @property
    def state(self) -> KeyState:
        if self.deleted_at:
            return KeyState.DELETED
        if self.fault:
            return KeyState.BAD
        return KeyState.USABLE if self.is_enabled else KeyState.DISABLED
