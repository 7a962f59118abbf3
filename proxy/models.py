"""The pool and its ledgers as rows: keys, their places in the rotation, daily usage, exhaustion. No HTTP.

`Place` is derived: it can be rebuilt at any time from `ApiKey` and `ExhaustionEvent`, and is there so that claiming a
key is one look into an index, however many keys are exhausted.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Self

from django.db import connection, models, transaction
from django.db.models import Q, QuerySet

from proxy.masking import last_four
from proxy.refusals import Fault, Refusal, Window

_CHUNK = 500  # keys in one query

# What calls that name no model (lists, files) are claimed and counted under.
NO_MODEL = "-"


def key_label(key_id: int, name: str, secret: str | None) -> str:
    """Return how pages and logs call a key: its name, or number, and the last four characters of its secret."""
    return f"{name or f'key {key_id}'} {last_four(secret) if secret else '(deleted)'}"


class KeyState(models.TextChoices):
    """What can be said of a key as a whole; resting is said for each model."""

    USABLE = "usable", "usable"
    DISABLED = "disabled", "disabled"
    BAD = "bad", "bad"
    DELETED = "deleted", "deleted"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """Keys of the pool."""

    def usable(self) -> Self:
        """Keys that take part in the rotation: enabled, and nothing wrong with them."""
        return self.filter(is_enabled=True, fault="", deleted_at=None)

    def present(self) -> Self:
        """Keys that were not deleted."""
        return self.filter(deleted_at=None)

    def bad(self) -> Self:
        """Keys that Google does not take any more."""
        return self.present().exclude(fault="")

    def sharing_quota_with(self, keys: Iterable["ApiKey"]) -> Self:
        """These keys, and all others of their projects: what one of them spends, they spend together."""
        ids, projects = [key.pk for key in keys], {key.project for key in keys if key.project}
        return self.present().filter(Q(id__in=ids) | Q(project__in=projects))

    def enable(self, moment: datetime) -> int:
        return self.change(moment, is_enabled=True)

    def disable(self, moment: datetime) -> int:
        return self.change(moment, is_enabled=False)

    def mark_bad(self, fault: Fault, reason: str, moment: datetime) -> int:
        """Take keys out of the rotation because Google says why; one that is bad already keeps its first reason."""
        return self.filter(fault="").change(moment, fault=fault, fault_reason=reason[:300], fault_since=moment)

    def revive(self, moment: datetime) -> int:
        """Bring keys back: no fault, and no exhaustion in force, neither theirs nor that of their projects."""
        with transaction.atomic():
            keys = list(self)
            ExhaustionEvent.objects.of(keys).in_force(moment).update(until=moment)
            changed = self.change(moment, fault="", fault_reason="", fault_since=None)
            Place.objects.rebuild(ApiKey.objects.sharing_quota_with(keys), moment)
            Place.objects.filter(key__in=keys).update(refusals_in_a_row=0)
        return changed

    def forget(self, moment: datetime) -> int:
        """Delete keys, as people say: the secret is gone for good, the history stays under the key's name."""
        return self.change(moment, secret=None, deleted_at=moment)

    def change(self, moment: datetime, **values: object) -> int:
        """Write `values` to these keys, and their places with them; return how many keys there were."""
        changed = 0
        with transaction.atomic():
            ids = list(self.values_list("id", flat=True))
            for start in range(0, len(ids), _CHUNK):
                keys = ApiKey.objects.filter(id__in=ids[start : start + _CHUNK])
                changed += keys.update(**values)
                Place.objects.rebuild(keys, moment)
        return changed


class ApiKey(models.Model):
    """A member of the pool: one Gemini API key, and the Google project it belongs to, if known."""

    name = models.CharField(max_length=100, blank=True, help_text="How people call this key. May stay empty.")
    secret = models.CharField(
        max_length=300,
        unique=True,
        null=True,
        editable=False,
        help_text="The key itself, as Google AI Studio shows it. It cannot be read again later.",
    )
    project = models.CharField(
        max_length=100,
        blank=True,
        db_index=True,
        help_text="The Google project. Quotas belong to projects: keys that name the same one rest together.",
    )
    is_enabled = models.BooleanField("enabled", default=True, help_text="Only enabled keys are in the rotation.")
    fault = models.CharField(max_length=20, blank=True, editable=False, choices=[(f.value, f.value) for f in Fault])
    fault_reason = models.CharField(max_length=300, blank=True, editable=False)
    fault_since = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        constraints = [
            models.CheckConstraint(
                condition=Q(deleted_at=None, secret__isnull=False) | Q(deleted_at__isnull=False, secret=None),
                name="a_deleted_key_has_no_secret",
            ),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def masked(self) -> str:
        """The last four characters of the secret; "deleted" when there is none any more."""
        return last_four(self.secret) if self.secret else "deleted"

    @property
    def label(self) -> str:
        """How pages and logs call the key: name (or number) and last four characters."""
        return key_label(self.pk, self.name, self.secret)

    @property
    def state(self) -> KeyState:
        if self.deleted_at:
            return KeyState.DELETED
        if self.fault:
            return KeyState.BAD
        return KeyState.USABLE if self.is_enabled else KeyState.DISABLED


class PlaceQuerySet(models.QuerySet["Place"]):
    """Places in the rotation."""

    def resting(self, moment: datetime) -> Self:
        """Closed places of keys with nothing wrong: until a moment to come, or until somebody acts."""
        waits_for_somebody = Q(key__is_enabled=True, key__fault="", key__deleted_at=None, rests_until=None)
        return self.filter(Q(rests_until__gt=moment) | waits_for_somebody, is_open=False)

    def rebuild(self, keys: QuerySet["ApiKey"], moment: datetime) -> None:
        """Write the places of `keys` anew, from the keys and the exhaustion in force; keeps the order of rotation.

        A few queries for every 500 keys. Waits for transactions that change the same keys.
        """
        # Every key has a place in every rotation: those of one key tell them all.
        lanes = {"", *self.filter(key__in=self.values("key")[:1]).values_list("model_name", flat=True)}
        ids = list(keys.order_by("id").values_list("id", flat=True))
        for start in range(0, len(ids), _CHUNK):
            chunk = list(ApiKey.objects.filter(id__in=ids[start : start + _CHUNK]).select_for_update().order_by("id"))
            events = list(ExhaustionEvent.objects.of(chunk).in_force(moment))
            places = []
            for key in chunk:
                rests = [event for event in events if event.concerns(key)]
                for lane in lanes:
                    untils = [event.until for event in rests if event.model_name in ("", lane)]
                    is_open = key.state is KeyState.USABLE and not untils
                    ends = [until for until in untils if until]
                    is_by_time = key.state is KeyState.USABLE and len(ends) == len(untils)
                    rests_until = max(ends, default=None) if is_by_time else None
                    places.append(Place(key=key, model_name=lane, is_open=is_open, rests_until=rests_until))
            self.bulk_create(
                places,
                update_conflicts=True,
                unique_fields=["key", "model_name"],
                update_fields=["is_open", "rests_until"],
            )

    def add_lane(self, model_name: str) -> None:
        """Give `model_name` a rotation of its own, in the order of the common one; nothing if it has one."""
        if self.filter(model_name=model_name).exists():
            return
        # One statement: the ledger does this while requests wait, and there may be ten thousand keys.
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO proxy_place (key_id, model_name, last_used, is_open, rests_until, refusals_in_a_row) "
                "SELECT key_id, %s, last_used, is_open, rests_until, 0 FROM proxy_place WHERE model_name = ''",
                [model_name],
            )


class Place(models.Model):
    """The place of a key in the rotation of one model ("" for models without a rotation of their own).

    last_used: microseconds since 1970, 0 for never: the order of the rotation. A closed place without `rests_until`
    stays closed until somebody acts.
    """

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="places")
    model_name = models.CharField(max_length=200, blank=True)
    last_used = models.BigIntegerField(default=0)
    is_open = models.BooleanField(default=True)
    rests_until = models.DateTimeField(null=True)
    refusals_in_a_row = models.PositiveSmallIntegerField(default=0)

    objects = PlaceQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "model_name"], name="one_place_for_key_and_model")]
        indexes = [
            models.Index(fields=["model_name", "last_used"], condition=Q(is_open=True), name="place_rotation"),
            models.Index(fields=["model_name", "rests_until"], condition=Q(is_open=False), name="place_rests"),
        ]

    def __str__(self) -> str:
        return f"{self.key} for {self.model_name or 'any model'}"


class DailyUsage(models.Model):
    """What a key did for a model on a quota day. Only `ledger.py` adds to it.

    answers: everything but a 429 (as in key_usage.txt); errors: those answers with a status of 400 and more.
    """

    key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="usage")
    model_name = models.CharField(max_length=200, blank=True)
    day = models.DateField(help_text="The quota day: a Pacific date, unless QUOTA_TIME_ZONE says otherwise.")
    answers = models.PositiveBigIntegerField(default=0)
    imported_answers = models.PositiveBigIntegerField(
        default=0, editable=False, help_text="How many of the answers came from a key_usage.txt."
    )
    errors = models.PositiveBigIntegerField(default=0)
    refusals = models.PositiveBigIntegerField(default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    thinking_tokens = models.PositiveBigIntegerField(default=0)
    cached_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "daily usage"
        constraints = [
            models.UniqueConstraint(fields=["key", "model_name", "day"], name="one_row_for_key_model_day"),
        ]
        indexes = [models.Index(fields=["day", "model_name"], name="usage_by_day")]

    def __str__(self) -> str:
        return f"{self.key}, {self.model_name or 'no model'}, {self.day}: {self.answers}"


class ExhaustionEventQuerySet(models.QuerySet["ExhaustionEvent"]):
    """What ran out, and until when."""

    def in_force(self, moment: datetime) -> Self:
        """Events that keep a key from being asked at `moment`."""
        return self.filter(Q(until=None) | Q(until__gt=moment))

    def of(self, keys: Iterable["ApiKey"]) -> Self:
        """Events that concern these keys: their own, and those of their projects."""
        ids, projects = [key.pk for key in keys], {key.project for key in keys if key.project}
        return self.filter(Q(key__in=ids) | Q(project__in=projects))

    def record(
        self, key: "ApiKey", model_name: str, refusal: Refusal, moment: datetime, until: datetime | None
    ) -> None:
        """Write down that a quota ran out; what is still in force for the same reason is prolonged instead."""
        same = self.in_force(moment).filter(key=key, project=key.project, model_name=model_name, window=refusal.window)
        if not same.update(until=until, limit=refusal.limit):
            self.create(
                key=key,
                project=key.project,
                model_name=model_name,
                window=refusal.window,
                limit=refusal.limit,
                since=moment,
                until=until,
            )


WINDOWS = [
    (Window.DAY.value, "requests or tokens a day"),
    (Window.MINUTE.value, "requests or tokens a minute"),
    (Window.NONE.value, "the project may not use this model"),
    (Window.CREDITS.value, "credits spent, or a spending cap"),
    (Window.UNKNOWN.value, "no reason given"),
]


class ExhaustionEvent(models.Model):
    """A quota that ran out: of one model, or of all ("") when the money ran out. Holds for the key's whole project."""

    key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="exhaustion")
    project = models.CharField(max_length=100, blank=True, help_text="The key's project at that time.")
    model_name = models.CharField(max_length=200, blank=True)
    window = models.CharField(max_length=10, choices=WINDOWS)
    limit = models.PositiveBigIntegerField(null=True, help_text="The limit that Google named, if it did.")
    since = models.DateTimeField()
    until = models.DateTimeField(null=True, help_text="Empty: until somebody revives the key.")

    objects = ExhaustionEventQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["until"], name="exhaustion_until"),
            models.Index(fields=["since"], name="exhaustion_since"),
        ]

    def __str__(self) -> str:
        return f"{self.key}, {self.model_name or 'all models'}, since {self.since:%Y-%m-%d %H:%M}"

    def concerns(self, key: ApiKey) -> bool:
        return self.key_id == key.pk or bool(self.project and self.project == key.project)
