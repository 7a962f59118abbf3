"""Books the outcome of attempts in the ledger's transaction: counts, learned limits, exhaustion, faults, overload."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import itemgetter

from django.db.backends.utils import CursorWrapper

from proxy.gemini.refusals import Fault, Refusal, Window
from proxy.ledger.backoff import pause_ns
from proxy.ledger.claims import Claim, Learned
from proxy.ledger.minute_window import give_back
from proxy.models import ALL_MODELS, NO_MODEL, ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Quota, Resource

_QUOTA, _USAGE = Quota._meta.db_table, DailyUsage._meta.db_table
# One at a time, since other requests in flight may still be refused.
_PROVE = f"UPDATE {_QUOTA} SET most_in_a_minute = most_in_a_minute + 1 WHERE id = %s AND most_in_a_minute < %s"
_UNPROVE = (
    f"UPDATE {_QUOTA} SET most_in_a_minute = minute_requests WHERE id = %s AND most_in_a_minute > minute_requests"
)

# Cooldowns that end this close together are the same one: Google sent them to requests in flight at the same time.
_SAME_COOLDOWN = timedelta(seconds=0.5)
_SAME_COOLDOWN_WITHOUT_DELAY = timedelta(minutes=1)


def prove(cursor: CursorWrapper, claims: Iterable[Claim]) -> None:
    """Learn from answers that their quotas accept so many requests a minute. Errors count too."""
    cursor.executemany(_PROVE, sorted((claim.quota_id, claim.in_minute) for claim in claims))


def write_answer(claim: Claim, status: int) -> None:
    """Learn from an answer that is unusual. The answer itself is counted elsewhere."""
    if claim.is_new_model and 400 <= status < 500 and status != 429:
        GeminiModel.objects.drop_unknown(claim.model_name)  # as far as we know, this model does not exist
        return
    if claim.is_new_model:
        GeminiModel.objects.mark_known(claim.model_name)
    if status >= 400:
        return
    if claim.refusals_in_a_row:
        Quota.objects.filter(id=claim.quota_id).update(refusals_in_a_row=0)
    if claim.overloads:
        GeminiModel.objects.filter(model_name=claim.model_name).update(overloads=0, backs_off_until=0)
    if claim.disproves:
        Quota.objects.filter(id=claim.quota_id).update(**dict.fromkeys(claim.disproves))


def write_resources(claim: Claim, learned: Learned, moment: datetime) -> None:
    """Store which resources the key's project owns, and forget one that was deleted."""
    if learned.expiries:
        Resource.objects.remember(claim.key_id, learned.creator, learned.expiries, moment)
    if learned.deleted:
        Resource.objects.filter(name=learned.deleted).delete()


def take_back(cursor: CursorWrapper, *claims: Claim) -> None:
    """Take back claims that Google did not count or never received."""
    places = sorted((claim.quota_id, claim.tenth, claim.tokens) for claim in claims if claim.tenth)
    for (quota_id, tenth), found in groupby(places, key=itemgetter(0, 1)):
        tokens = [place[2] for place in found]
        give_back(cursor, quota_id, tenth, len(tokens), sum(tokens))


def write_spent_day(claim: Claim, moment: datetime, until: datetime) -> None:
    """Record that a project has used up its daily limit, without a refusal by Google."""
    key = ApiKey.objects.select_related("project").get(id=claim.key_id)
    quota = Quota.objects.filter(id=claim.quota_id).first()
    if quota is None:  # the key turned out to be in another project, or the model not to exist
        return
    refusal = Refusal(Window.DAY, limit=quota.limit_in_force("requests_per_day"))
    ExhaustionEvent.objects.record(key, quota.model_name, refusal, moment, until)


def write_refusal(
    cursor: CursorWrapper,
    claim: Claim,
    refusal: Refusal,
    *,
    project: str | None,
    moment: datetime,
    until: datetime | None,
) -> None:
    """Record that a quota is exhausted, store the limits that the refusal reports, and close the quotas concerned."""
    if _is_seen_in_window(claim, refusal):
        until = moment
    take_back(cursor, claim)
    if refusal.window in (Window.MINUTE, Window.UNKNOWN):
        cursor.execute(_UNPROVE, [claim.quota_id])
    if _is_known(claim, refusal, moment, until):
        return
    learn_project(claim, project, moment)
    key = ApiKey.objects.select_related("project").get(id=claim.key_id)
    if refusal.window is Window.CREDITS:
        ExhaustionEvent.objects.record(key, ALL_MODELS, refusal, moment, until)
        Quota.objects.recompute([key.project_id], moment)
        return
    if claim.rotation_name == NO_MODEL:  # its limits are not among those we count
        ExhaustionEvent.objects.record(key, NO_MODEL, refusal, moment, until)
        Quota.objects.recompute([key.project_id], moment, NO_MODEL)
        return
    model_name = GeminiModel.objects.spent_by(claim.model_name, refusal.model_name)
    ExhaustionEvent.objects.record(key, model_name, refusal, moment, until)
    quota = Quota.objects.filter(project=key.project, model_name=model_name)
    if learned := {f"learned_{name}": limit for name, limit in refusal.limits._asdict().items() if limit}:
        quota.update(**learned)
    Quota.objects.recompute([key.project_id], moment, model_name)
    if refusal.window is Window.UNKNOWN:
        quota.update(refusals_in_a_row=min(claim.refusals_in_a_row + 1, 30))


def _is_known(claim: Claim, refusal: Refusal, moment: datetime, until: datetime | None) -> bool:
    """Tell whether an earlier refusal said the same. Hundreds may be in flight when a limit is reached."""
    model_name = refusal.model_name or claim.rotation_name
    quota = Quota.objects.filter(project__keys=claim.key_id, model_name=model_name, is_open=False).first()
    if quota is None:
        return False
    limits = refusal.limits._asdict().items()
    is_learned = all(getattr(quota, f"learned_{name}") == limit for name, limit in limits if limit)
    if until is None:
        return is_learned and quota.is_barred
    slack = _SAME_COOLDOWN if refusal.delay is not None else _SAME_COOLDOWN_WITHOUT_DELAY
    return is_learned and until <= max(moment, quota.cooldown_until or moment) + slack


def _is_seen_in_window(claim: Claim, refusal: Refusal) -> bool:
    """Tell whether our own token count agrees with the refusal: then it also tells what fits, and when."""
    limit = refusal.limits.input_tokens_per_minute
    if refusal.window is not Window.TOKENS or limit is None or not claim.tenth:
        return False
    return Quota.objects.filter(id=claim.quota_id, minute_tokens__gte=limit * 9 // 10).exists()


def learn_project(claim: Claim, project: str | None, moment: datetime) -> None:
    """Store the key's project if an error named it and it was not known yet."""
    if project:
        ApiKey.objects.filter(id=claim.key_id, project__name="").move_to(project, moment)


def write_fault(claim: Claim, fault: Fault, reason: str, project: str | None, moment: datetime) -> None:
    """Mark the key as bad, which takes it out of the rotation."""
    learn_project(claim, project, moment)
    ApiKey.objects.filter(id=claim.key_id).mark_bad(fault, reason, moment)


def write_overload(claim: Claim, now: int) -> None:
    """Make the whole pool back off from the model, for twice as long after each wave of overload.

    now: the time by the clock of `Use`. A claim made before the last pause belongs to the wave that caused that pause.
    """
    for rotation in GeminiModel.objects.filter(model_name=claim.model_name).select_for_update():
        if claim.overloads >= rotation.overloads:
            overloads = min(rotation.overloads + 1, 100)
            rotation.overloads, rotation.backs_off_until = overloads, now + pause_ns(overloads)
            rotation.save(update_fields=["overloads", "backs_off_until"])


_COUNTERS = tuple(
    field.name for field in DailyUsage._meta.concrete_fields if field.name not in ("id", "key", "model_name", "day")
)
_ADD_USAGE = (
    f"UPDATE {_USAGE} SET {', '.join(f'{name} = {name} + %s' for name in _COUNTERS)} "
    "WHERE key_id = %s AND model_name = %s AND day = %s"
)
_BEGIN_USAGE = (
    f"INSERT INTO {_USAGE} ({', '.join(_COUNTERS)}, key_id, model_name, day) "
    f"VALUES ({', '.join(['%s'] * (3 + len(_COUNTERS)))}) ON CONFLICT (key_id, model_name, day) "
    f"DO UPDATE SET {', '.join(f'{name} = {_USAGE}.{name} + excluded.{name}' for name in _COUNTERS)}"
)


def add_usage(cursor: CursorWrapper, counts: Mapping[tuple[int, str, date], Mapping[str, int]]) -> None:
    """Add counts to the rows of DailyUsage with these keys, models and days; create the missing rows."""
    # In a fixed order, so that transactions on PostgreSQL cannot deadlock.
    rows: list[tuple[int | str, ...]] = [
        (*(numbers.get(name, 0) for name in _COUNTERS), key_id, model_name, day.isoformat())
        for (key_id, model_name, day), numbers in sorted(counts.items(), key=lambda item: item[0])
    ]
    if cursor.db.vendor == "postgresql":
        cursor.executemany(_BEGIN_USAGE, rows)
        return
    for row in rows:
        cursor.execute(_ADD_USAGE, row)
        if not cursor.rowcount:  # an INSERT every time would also write SQLite's table of sequences
            cursor.execute(_BEGIN_USAGE, row)
