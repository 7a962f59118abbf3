"""The keys of the pool, and the usage of each."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, NamedTuple

from django.db.models import Case, CharField, F, OuterRef, Q, QuerySet, Subquery, Sum, Value, When
from django.db.models.functions import Cast, Coalesce, Concat, Length, Right
from django.db.models.lookups import GreaterThan
from django.utils.translation import gettext

from proxy.dashboard.reports.period import Period
from proxy.dashboard.reports.pool import today
from proxy.gemini.quota_day import day_start
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, KeyHour, KeyState, LoggedRequest, Outcome, Quota
from proxy.models.quotas import limit_in_force

# Usable keys that are rate-limited or exhausted for some model.
LIMITED = "limited"
STATES = (KeyState.USABLE.value, LIMITED, KeyState.BAD.value, KeyState.DISABLED.value)
SORTS = ("name", "project", "state", "used", "last_used")


class ModelUse(NamedTuple):
    """A key's usage for a model in a period."""

    model_name: str
    answers: int
    errors: int
    refusals: int
    prompt_tokens: int
    output_tokens: int
    thinking_tokens: int
    cached_tokens: int


def found(moment: datetime, period: Period, *, searched: str = "", state: str = "") -> QuerySet[ApiKey]:
    """Return the keys of `period` in one of STATES (or ""), whose label or project contains the searched text."""
    keys = ApiKey.objects.present()
    if period.key_id:
        keys = keys.filter(id=period.key_id)
    if period.project_id:
        keys = keys.filter(project=period.project_id)
    if state == KeyState.BAD:
        keys = keys.bad()
    elif state == KeyState.DISABLED:
        keys = keys.disabled()
    elif state:
        keys = keys.usable()
    if state == LIMITED:
        keys = keys.filter(project__in=_events(moment, period.model_name).values("project"))
    if searched:
        keys = keys.alias(shown_as=_label()).filter(
            Q(shown_as__icontains=searched) | Q(project__name__icontains=searched)
        )
    return keys


def in_order(keys: QuerySet[ApiKey], moment: datetime, period: Period, sort: str) -> QuerySet[ApiKey]:
    """Sort keys by one of SORTS, in descending order with a "-" in front. At most one query."""
    by: Any
    name = sort.removeprefix("-")
    if name == "used":
        by = _used_today(moment, period.model_name)
    elif name == "state":
        by = Case(
            When(~Q(fault=""), then=3),
            When(is_enabled=False, then=2),
            When(project__in=_events(moment, period.model_name).values("project"), then=1),
            default=0,
        )
    else:
        by = F("project__name" if name == "project" else name)
    if sort.startswith("-"):
        return keys.order_by(by.desc(nulls_last=True), "-id")
    return keys.order_by(by.asc(nulls_first=True), "id")


def _label() -> Concat:
    """Return the SQL for `shown_label`, without anything else of the secret."""
    number = Concat(Value(gettext("key %(number)s") % {"number": ""}), Cast("id", CharField()))
    four = Case(When(GreaterThan(Length("secret"), 8), then=Right("secret", 4)), default=Value(""))
    return Concat(Case(When(name="", then=number), default=F("name")), Value(" …"), four)


def _used_today(moment: datetime, model_name: str) -> Coalesce:
    """Return a key's answers today, by one lookup in the index (key, model, day) for each model used today."""
    day = today(moment)
    of_today = DailyUsage.objects.filter(day=day)
    names = [model_name] if model_name else list(of_today.values_list("model_name", flat=True).distinct())
    of_key = of_today.filter(key=OuterRef("pk"), model_name__in=names).order_by().values("key")
    return Coalesce(Subquery(of_key.annotate(sum=Sum("answers")).values("sum")), 0)


def _events(moment: datetime, model_name: str) -> QuerySet[ExhaustionEvent]:
    return ExhaustionEvent.objects.in_force(moment).about(model_name)


def events_of(projects: Iterable[int], moment: datetime, model_name: str = "") -> dict[int, list[ExhaustionEvent]]:
    """Return the exhaustion events in force of each project, the longest first. One query."""
    events = defaultdict(list)
    in_force = _events(moment, model_name).filter(project__in=set(projects))
    for event in in_force.order_by(F("until").desc(nulls_first=True)):
        events[event.project_id].append(event)
    return events


def limits_of(projects: Iterable[int], model_name: str = "") -> dict[int, int]:
    """Return each project's requests per day, summed over all models with a known limit. One query."""
    quotas = (
        Quota.objects.of_models().filter(project__in=set(projects)).annotate(limit=limit_in_force("requests_per_day"))
    )
    if model_name:
        quotas = quotas.filter(model_name=model_name)
    sums = quotas.filter(limit__isnull=False).order_by().values("project").annotate(sum=Sum("limit"))
    return dict(sums.values_list("project", "sum"))


def answers_by_day(
    keys: Iterable[int], first: date, last: date, model_name: str = ""
) -> defaultdict[int, dict[date, int]]:
    """Return the answers of each key on each quota day that has any. One query."""
    of_keys = DailyUsage.objects.filter(key__in=list(keys))
    # With model names, the index (key, model, day) finds the days without reading older ones.
    names = [model_name] if model_name else of_keys.order_by().values("model_name").distinct()
    usage = of_keys.filter(model_name__in=names, day__range=(first, last))
    sums: defaultdict[int, dict[date, int]] = defaultdict(dict)
    for key_id, day, answers in usage.order_by().values_list("key", "day").annotate(Sum("answers")):
        sums[key_id][day] = answers
    return sums


def answers_by_hour(key_id: int, period: Period) -> dict[tuple[date, int], int]:
    """Return the answers of a key by quota day and hour. An hour that a day has twice counts as one. One query."""
    sums: defaultdict[tuple[date, int], int] = defaultdict(int)
    hours = KeyHour.objects.filter(key=key_id, hour__gte=period.since, hour__lt=period.until)
    for hour, answers in hours.order_by().values_list("hour", "answers"):
        local = hour.astimezone(period.zone)
        sums[local.date(), local.hour] += answers
    return sums


def hours_of(day: date, period: Period) -> set[int]:
    """Return the hours of a quota day. One is missing when the clocks go forward."""
    begin, end = day_start(day, period.zone), day_start(date.fromordinal(day.toordinal() + 1), period.zone)
    seconds = range(int(begin.timestamp()), int(end.timestamp()), 3600)
    return {datetime.fromtimestamp(second, period.zone).hour for second in seconds}


def use_by_model(key_id: int, period: Period) -> list[ModelUse]:
    """Return a key's usage by model on the quota days of `period`, the most used first. One query."""
    usage = DailyUsage.objects.filter(key=key_id, day__range=(period.first, period.last))
    if period.model_name:
        usage = usage.filter(model_name=period.model_name)
    sums = {f"sum_{name}": Sum(name) for name in ModelUse._fields[1:]}
    rows = usage.order_by().values_list("model_name").annotate(**sums)
    return sorted((ModelUse(*row) for row in rows), key=lambda use: (-use.answers, use.model_name))


def exhaustion_of(key_id: int, at_most: int = 50) -> QuerySet[ExhaustionEvent]:
    """Return the exhaustion events of a key, newest first. One query."""
    return ExhaustionEvent.objects.filter(key=key_id).order_by("-id")[:at_most]


def errors_of(key_id: int, at_most: int = 20) -> QuerySet[LoggedRequest]:
    """Return the latest requests that were refused or failed and whose last attempt used this key. One query."""
    # The index (key, began) has them in this order.
    errors = LoggedRequest.objects.filter(key=key_id, outcome__in=[Outcome.REFUSED, Outcome.FAILED])
    return errors.order_by("-began", "-id")[:at_most]
