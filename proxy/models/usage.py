"""The daily usage of keys, which is kept forever."""

from django.db import models
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from proxy.models.keys import ApiKey


class DailyUsage(models.Model):
    """The usage of a key for a model on a quota day. Written by the ledger and by importusage."""

    key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, verbose_name=_("key"), related_name="usage")
    model_name = models.CharField(_("model name"), max_length=200, blank=True)
    day = models.DateField(
        _("day"), help_text=_("The quota day: a Pacific date, unless QUOTA_TIME_ZONE says otherwise.")
    )
    # Every answer except a 429, as in key_usage.txt.
    answers = models.PositiveBigIntegerField(_("answers"), default=0)
    imported_answers = models.PositiveBigIntegerField(
        _("imported answers"),
        default=0,
        editable=False,
        help_text=_("How many of the answers were imported from a key_usage.txt."),
    )
    # Answers with a status of 400 or more.
    errors = models.PositiveBigIntegerField(_("errors"), default=0)
    # 429s.
    refusals = models.PositiveBigIntegerField(_("refusals"), default=0)
    prompt_tokens = models.PositiveBigIntegerField(_("prompt tokens"), default=0)
    output_tokens = models.PositiveBigIntegerField(_("output tokens"), default=0)
    thinking_tokens = models.PositiveBigIntegerField(_("thinking tokens"), default=0)
    cached_tokens = models.PositiveBigIntegerField(_("cached tokens"), default=0)

    class Meta:
        verbose_name = verbose_name_plural = _("daily usage")
        constraints = [
            models.UniqueConstraint(fields=["key", "model_name", "day"], name="one_row_for_key_model_day"),
        ]
        indexes = [models.Index(fields=["day", "model_name"], name="usage_by_day")]

    def __str__(self) -> str:
        model_name = self.model_name or gettext("no model")
        return f"{self.key}, {model_name}, {self.day}: {self.answers}"
