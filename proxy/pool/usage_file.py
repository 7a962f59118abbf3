"""key_usage.txt, the file of the former script: both forms can be read, and the newer one is written exactly."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils.translation import gettext

from proxy.gemini.quota_day import day_start, next_reset, quota_day
from proxy.gemini.refusals import Window
from proxy.models import ALL_MODELS, NO_MODEL, ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Quota
from proxy.pool.adding import add_keys
from proxy.pool.key_file import POSSIBLE_SECRET

_MOST = 2**53  # exact in JSON, and within the range of every database
_FIRST_DAY = date(2020, 1, 1)  # older than the Gemini API


class BadUsageFile(ValueError):
    """The text is not a key_usage.txt. The message says why."""


@dataclass(frozen=True, slots=True)
class UsageFile:
    """One day of usage."""

    day: date
    # Answers by secret and model. NO_MODEL has the answers without a model.
    counts: dict[str, dict[str, int]]
    # Exhausted models by secret; ALL_MODELS in the older form.
    exhausted: dict[str, list[str]] = field(default_factory=dict)

    @property
    def secrets(self) -> list[str]:
        return list(dict.fromkeys([*self.counts, *self.exhausted]))

    @property
    def answers(self) -> int:
        return sum(sum(models.values()) for models in self.counts.values())


def parse_usage(text: str) -> UsageFile:
    """Return the usage in a key_usage.txt, in its newer form (with models) or the older one. Raises BadUsageFile."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadUsageFile(gettext("it is not JSON (%(error)s)") % {"error": exc}) from None
    if not isinstance(content, dict) or "date" not in content or "counts" not in content:
        raise BadUsageFile(gettext('it has no "date" and "counts"'))
    try:
        day = date.fromisoformat(content["date"])
    except (TypeError, ValueError):
        raise BadUsageFile(gettext('its "date" is not a date such as 2026-11-23')) from None
    if day < _FIRST_DAY:
        raise BadUsageFile(gettext("its year is %(year)d") % {"year": day.year})
    model_counts = {
        secret: _numbers(models, "model_counts") for secret, models in _dict(content.get("model_counts", {})).items()
    }
    counts = {secret: dict(models) for secret, models in model_counts.items()}
    for secret, total in _numbers(content["counts"], "counts").items():
        models = counts.setdefault(secret, {})
        if (rest := total - sum(models.values())) > 0:
            models[NO_MODEL] = models.get(NO_MODEL, 0) + rest
    exhausted = content.get("exhausted_keys", {})
    if not all(map(_is_secret, [*counts, *(exhausted if isinstance(exhausted, list | dict) else ())])):
        raise BadUsageFile(gettext("some of its keys are not valid"))
    if isinstance(exhausted, list) and all(isinstance(secret, str) for secret in exhausted):
        return UsageFile(day, counts, {secret: [ALL_MODELS] for secret in exhausted})
    if not isinstance(exhausted, dict) or not all(_are_strings(models) for models in exhausted.values()):
        raise BadUsageFile(gettext('its "exhausted_keys" are neither a list of keys nor lists of models by key'))
    return UsageFile(day, counts, exhausted)


def import_usage(usage: UsageFile, moment: datetime) -> int:
    """Add a day's counts and exhaustion events; return how many keys were unknown. They are added as disabled keys.

    Importing the same file again, or a later state of it, adds only what is new. One transaction.
    """
    zone = settings.QUOTA_ZONE
    since = day_start(usage.day, zone)
    until = next_reset(since, zone)
    with transaction.atomic():
        unknown = add_keys(usage.secrets, moment, is_enabled=False).new
        secrets = set(usage.secrets)
        keys = {key.secret: key for key in ApiKey.objects.present() if key.secret in secrets}
        for secret, models in usage.counts.items():
            # An earlier import of this file may have had other models, or none.
            earlier = DailyUsage.objects.filter(key=keys[secret], day=usage.day, imported_answers__gt=0)
            earlier.exclude(model_name__in=models).update(
                answers=F("answers") - F("imported_answers"), imported_answers=0
            )
            for model_name, answers in models.items():
                row, _ = DailyUsage.objects.get_or_create(key=keys[secret], model_name=model_name[:200], day=usage.day)
                DailyUsage.objects.filter(id=row.pk).update(
                    answers=F("answers") + answers - F("imported_answers"), imported_answers=answers
                )
        for secret, model_names in usage.exhausted.items():
            for model_name in model_names:
                ExhaustionEvent.objects.get_or_create(
                    key=keys[secret],
                    model_name=model_name[:200],
                    window=Window.DAY,
                    since=since,
                    defaults={"project": keys[secret].project, "until": until},
                )
                if until > moment and model_name:
                    GeminiModel.objects.begin(model_name[:200])
        Quota.objects.filter(project__keys__in=keys.values()).recount()
        Quota.objects.recompute((key.project_id for key in keys.values()), moment)
    return unknown


def export_usage(day: date, moment: datetime) -> str:
    """Return the key_usage.txt of a quota day. It contains real keys, and has four spaces of indent as tools expect.

    For today, the exhausted keys are those at `moment`; for a past day, those that were exhausted for that day.
    """
    zone = settings.QUOTA_ZONE
    model_counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    counts: dict[str, int] = {}
    rows = DailyUsage.objects.filter(day=day, key__deleted_at=None, answers__gt=0).order_by("key_id", "model_name")
    for secret, model_name, answers in rows.values_list("key__secret", "model_name", "answers"):
        secret = secret or ""
        counts[secret] = counts.get(secret, 0) + answers
        if model_name != NO_MODEL:
            model_counts[secret][model_name] = answers
    start = day_start(day, zone)
    events = ExhaustionEvent.objects.filter(since__gte=start, since__lt=next_reset(start, zone), key__deleted_at=None)
    if day == quota_day(moment, zone):
        events = ExhaustionEvent.objects.in_force(moment).filter(key__deleted_at=None)
    else:
        events = events.filter(Q(window=Window.DAY) | Q(until=None))
    all_models = sorted({model_name for models in model_counts.values() for model_name in models})
    exhausted: defaultdict[str, set[str]] = defaultdict(set)
    for secret, model_name in events.order_by("key_id").values_list("key__secret", "model_name"):
        exhausted[secret or ""].update([model_name] if model_name else all_models)
    content: dict[str, Any] = {
        "date": day.isoformat(),
        "counts": counts,
        "model_counts": model_counts,
        "exhausted_keys": {secret: sorted(models) for secret, models in exhausted.items()},
    }
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadUsageFile(gettext('its "model_counts" are not numbers by key and model'))
    return value


def _numbers(value: Any, name: str) -> dict[str, int]:
    if not isinstance(value, dict) or not all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _MOST for n in value.values()
    ):
        raise BadUsageFile(gettext('its "%(name)s" are not whole numbers by key') % {"name": name})
    return value


def _is_secret(value: Any) -> bool:
    return isinstance(value, str) and POSSIBLE_SECRET.fullmatch(value) is not None


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
