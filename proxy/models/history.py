"""How requests ended: the log, kept for some days, and hourly sums, which `ledger/retention.py` sums up by day.

The ledger writes all of it (`ledger/history.py`). Pages about weeks read the sums, never the log.
"""

import math

from django.db import models
from django.utils.translation import gettext_lazy as _

from proxy.models.keys import ApiKey

# How many days each is kept.
HOURS_DAYS = 35
FIRST_BYTE_HOURS_DAYS = 3  # they have many rows
ACTIVITY_DAYS = 365  # Django's log of what people changed

_STEPS_OF_DOUBLING = 4


def first_byte_step(milliseconds: int) -> int:
    """Return the step of a duration on a scale of four steps per doubling: each step is 19 % longer than the last."""
    return round(math.log2(max(milliseconds, 1)) * _STEPS_OF_DOUBLING)


def milliseconds_of(step: int) -> int:
    """Return the duration of a step."""
    return round(2 ** (step / _STEPS_OF_DOUBLING))


class Outcome(models.IntegerChoices):
    """How a request ended for its client."""

    AT_ONCE = 1, _("answered at once")
    AFTER_FAIL_OVER = 2, _("answered after fail-over")
    REFUSED = 3, _("refused")
    FAILED = 4, _("failed")


class LoggedRequest(models.Model):
    """One request, without its path and body."""

    began = models.DateTimeField()
    request_id = models.CharField(max_length=128, db_index=True)
    # The HTTP method.
    method = models.CharField(max_length=20)
    # "generateContent", or "" if none.
    action = models.CharField(max_length=60, blank=True)
    # NO_MODEL when it named none.
    model_name = models.CharField(_("model"), max_length=200)
    # The key of the last attempt.
    key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, null=True, related_name="requests", db_index=False)
    # For each attempt, [key id, status of the answer]; the status is 0 without an answer.
    attempts = models.JSONField(default=list)
    # Sent to the client; 499 when it disconnected first.
    status = models.PositiveSmallIntegerField()
    outcome = models.PositiveSmallIntegerField(choices=Outcome.choices)
    # How long it waited for keys.
    waited_ms = models.PositiveIntegerField(default=0)
    # From the start of the request; empty when no answer was passed on.
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
    """The requests of an hour."""

    pk = models.CompositePrimaryKey("hour", "model_name")
    # The start of the hour, UTC.
    hour = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.model_name}, {self.hour:%Y-%m-%d %H}"


class ModelDay(ModelSums):
    """The requests of a quota day, without the hours that still have rows of their own."""

    pk = models.CompositePrimaryKey("day", "model_name")
    day = models.DateField()

    def __str__(self) -> str:
        return f"{self.model_name}, {self.day}"


class FirstByte(models.Model):
    """A histogram, by hour, of the time to the first byte of a model's answers."""

    pk = models.CompositePrimaryKey("hour", "model_name", "step")
    hour = models.DateTimeField()
    model_name = models.CharField(max_length=200)
    # As in `first_byte_step`.
    step = models.PositiveSmallIntegerField()
    answers = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.model_name}, {self.hour:%Y-%m-%d %H}: {self.answers} at {self.step}"


class FirstByteDay(models.Model):
    """The same by quota day, without the hours that still have rows of their own."""

    pk = models.CompositePrimaryKey("day", "model_name", "step")
    day = models.DateField()
    model_name = models.CharField(max_length=200)
    step = models.PositiveSmallIntegerField()
    answers = models.PositiveBigIntegerField(default=0)

    class Meta:
        # It includes the number, so that sums over years read only the index.
        indexes = [models.Index(fields=["day", "model_name", "step", "answers"], name="first_byte_day_sums")]

    def __str__(self) -> str:
        return f"{self.model_name}, {self.day}: {self.answers} at {self.step}"


class KeyHour(models.Model):
    """The attempts with a key in an hour, by outcome."""

    pk = models.CompositePrimaryKey("key_id", "hour")
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="hours", db_index=False)
    hour = models.DateTimeField(db_index=True)
    answers = models.PositiveBigIntegerField(default=0)
    errors = models.PositiveBigIntegerField(default=0)
    refusals = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.key_id}, {self.hour:%Y-%m-%d %H}"
