"""What became of requests: the log, kept for some days, and hourly sums, which `ledger/retention.py` adds up to days.

All of it is written by the ledger (`ledger/history.py`); pages over weeks read the sums, never the log.
"""

import math

from django.db import models
from django.utils.translation import gettext_lazy as _

from proxy.models.keys import ApiKey

# For how many days each is kept.
HOURS_DAYS = 35
FIRST_BYTE_HOURS_DAYS = 3  # there are many of them
ACTIVITY_DAYS = 365  # what people did

_STEPS_OF_DOUBLING = 4


def first_byte_step(milliseconds: int) -> int:
    """Return the step of a duration on a scale of four steps for each doubling: 19 % from one to the next."""
    return round(math.log2(max(milliseconds, 1)) * _STEPS_OF_DOUBLING)


def milliseconds_of(step: int) -> int:
    """Return the duration that stands for a step."""
    return round(2 ** (step / _STEPS_OF_DOUBLING))


class Outcome(models.IntegerChoices):
    """How a request ended, as its client saw it."""

    AT_ONCE = 1, _("answered at once")
    AFTER_FAIL_OVER = 2, _("answered after fail-over")
    REFUSED = 3, _("refused")
    FAILED = 4, _("failed")


class LoggedRequest(models.Model):
    """One request, from its beginning to the end of its answer. Never a body, never a path.

    model_name: NO_MODEL when it named none. method: of HTTP; action: "generateContent", "" if none. tries: the key's id
    and the status of its answer (0: none came), for each try. key: the last one that was tried. status: what the client
    got; 499 when it left before. Durations in milliseconds, since the beginning; first_byte_ms is empty when no answer
    was handed on.
    """

    began = models.DateTimeField()
    request_id = models.CharField(max_length=128, db_index=True)
    method = models.CharField(max_length=20)
    action = models.CharField(max_length=60, blank=True)
    model_name = models.CharField(_("model"), max_length=200)
    key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, null=True, related_name="requests", db_index=False)
    attempts = models.JSONField(default=list)
    status = models.PositiveSmallIntegerField()
    outcome = models.PositiveSmallIntegerField(choices=Outcome.choices)
    waited_ms = models.PositiveIntegerField(default=0)
    first_byte_ms = models.PositiveIntegerField(null=True)
    duration_ms = models.PositiveIntegerField()
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    thinking_tokens = models.PositiveBigIntegerField(default=0)
    cached_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        indexes = [
            models.Index(fields=["began"], name="request_began"),
            models.Index(fields=["model_name", "began"], name="request_model"),
            models.Index(fields=["key", "began"], name="request_key"),
            models.Index(fields=["outcome", "began"], name="request_outcome"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}: {self.status}"


class ModelSums(models.Model):
    """How requests for a model ended, and their tokens."""

    model_name = models.CharField(max_length=200)
    at_once = models.PositiveBigIntegerField(default=0)
    after_fail_over = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    thinking_tokens = models.PositiveBigIntegerField(default=0)
    cached_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        abstract = True


class ModelHour(ModelSums):
    """In an hour. hour: the beginning of one, UTC."""

    pk = models.CompositePrimaryKey("hour", "model_name")
    hour = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.model_name}, {self.hour:%Y-%m-%d %H}"


class ModelDay(ModelSums):
    """On a quota day, without the hours that are still kept."""

    pk = models.CompositePrimaryKey("day", "model_name")
    day = models.DateField()

    def __str__(self) -> str:
        return f"{self.model_name}, {self.day}"


class FirstByte(models.Model):
    """How many answers for a model had their first byte after so long, in an hour. step: see `first_byte_step`."""

    pk = models.CompositePrimaryKey("hour", "model_name", "step")
    hour = models.DateTimeField()
    model_name = models.CharField(max_length=200)
    step = models.PositiveSmallIntegerField()
    answers = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.model_name}, {self.hour:%Y-%m-%d %H}: {self.answers} at {self.step}"


class FirstByteDay(models.Model):
    """The same of a quota day, without the hours that are still kept."""

    pk = models.CompositePrimaryKey("day", "model_name", "step")
    day = models.DateField()
    model_name = models.CharField(max_length=200)
    step = models.PositiveSmallIntegerField()
    answers = models.PositiveBigIntegerField(default=0)

    class Meta:
        # With the number in it, the sums over years read the index alone.
        indexes = [models.Index(fields=["day", "model_name", "step", "answers"], name="first_byte_day_sums")]

    def __str__(self) -> str:
        return f"{self.model_name}, {self.day}: {self.answers} at {self.step}"


class KeyHour(models.Model):
    """What a key answered in an hour: tries, by what came of them."""

    pk = models.CompositePrimaryKey("key_id", "hour")
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="hours", db_index=False)
    hour = models.DateTimeField(db_index=True)
    answers = models.PositiveBigIntegerField(default=0)
    errors = models.PositiveBigIntegerField(default=0)
    refusals = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.key_id}, {self.hour:%Y-%m-%d %H}"
