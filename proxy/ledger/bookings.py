"""What the ledger writes of answers: counts, what they say of limits, rests, overload. In its transaction."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

from django.db.backends.utils import CursorWrapper

from proxy.gemini.refusals import Fault, Refusal, Window
from proxy.ledger.backoff import pause_ns
from proxy.ledger.claims import Claim
from proxy.ledger.minute_window import give_back, now_ns
from proxy.models import NO_MODEL, ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Quota

_QUOTA, _USAGE = Quota._meta.db_table, DailyUsage._meta.db_table
# One at a time, for others in flight may yet be refused: what is missing to `minute_requests` is in flight.
_PROVE = f"UPDATE {_QUOTA} SET most_in_a_minute = most_in_a_minute + 1 WHERE id = %s AND most_in_a_minute < %s"
_UNPROVE = (
    f"UPDATE {_QUOTA} SET most_in_a_minute = minute_requests WHERE id = %s AND most_in_a_minute > minute_requests"
)

# Rests that end within so short a time of each other are one: they were told to requests in flight together.
_SAME_COOLDOWN = timedelta(seconds=0.5)
_SAME_COOLDOWN_WITHOUT_DELAY = timedelta(minutes=1)


def write_answer(cursor: CursorWrapper, claim: Claim, status: int) -> None:
    """Note what an answer says of limits: so much was accepted. Called after it was counted."""
    quota = Quota.objects.filter(id=claim.quota_id)
    if claim.is_new_model and 400 <= status < 500 and status != 429:
        GeminiModel.objects.drop_unknown(claim.model_name)  # there is no such model, as far as is known
        return
    if claim.is_new_model:
        GeminiModel.objects.mark_known(claim.model_name)
    if claim.is_unproven:  # also by an error: the quota did not refuse it
        cursor.execute(_PROVE, [claim.quota_id, claim.in_minute])
    if status >= 400:
        return
    if claim.refusals_in_a_row:
        quota.update(refusals_in_a_row=0)
    if claim.overloads:
        GeminiModel.objects.filter(model_name=claim.model_name).update(overloads=0, backs_off_until=0)
    if claim.disproves:
        quota.update(**dict.fromkeys(claim.disproves))


def take_back(cursor: CursorWrapper, claim: Claim) -> None:
    """Take a claim back that Google did not count, or never saw."""
    if claim.tenth:
        give_back(cursor, claim.quota_id, claim.tenth, claim.tokens)


def write_spent_day(claim: Claim, moment: datetime, until: datetime) -> None:
    """Write that a project spent its day, as its limit says, without a refusal."""
    key = ApiKey.objects.select_related("project").get(id=claim.key_id)
    quota = Quota.objects.filter(id=claim.quota_id).first()
    if quota is None:  # its project turned out to be another, or its model not to exist: the next claim judges
        return
    limit = quota.learned_requests_per_day if quota.requests_per_day is None else quota.requests_per_day
    ExhaustionEvent.objects.record(key, quota.model_name, Refusal(Window.DAY, limit=limit), moment, until)


def write_refusal(
    cursor: CursorWrapper,
    claim: Claim,
    refusal: Refusal,
    *,
    project: str | None,
    moment: datetime,
    until: datetime | None,
) -> None:
    """Write that a quota ran out, what the refusal told of limits, and close what it concerns."""
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
        ExhaustionEvent.objects.record(key, "", refusal, moment, until)
        Quota.objects.recompute([key.project_id], moment)
        return
    if claim.rotation_name == NO_MODEL:  # the limits it was refused for are none of those that are counted
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
    """Return whether an earlier refusal said the same: hundreds may be in flight when a limit is met."""
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
    """Tell whether our own count of tokens says nearly the same: then it also says what still fits, and when."""
    limit = refusal.limits.input_tokens_per_minute
    if refusal.window is not Window.TOKENS or limit is None or not claim.tenth:
        return False
    return Quota.objects.filter(id=claim.quota_id, minute_tokens__gte=limit * 9 // 10).exists()


def learn_project(claim: Claim, project: str | None, moment: datetime) -> None:
    """Write which project the key belongs to, if an error told and nobody has said so before."""
    if project:
        ApiKey.objects.filter(id=claim.key_id, project__name="").move_to(project, moment)


def write_fault(claim: Claim, fault: Fault, reason: str, project: str | None, moment: datetime) -> None:
    """Take the key out of the rotation."""
    learn_project(claim, project, moment)
    ApiKey.objects.filter(id=claim.key_id).mark_bad(fault, reason, moment)


def write_overload(cursor: CursorWrapper, claim: Claim) -> None:
    """Let the whole pool leave the model alone for a moment; twice as long after each wave that fails again.

    A claim made before the last pause began belongs to the wave that led to it.
    """
    for rotation in GeminiModel.objects.filter(model_name=claim.model_name).select_for_update():
        if claim.overloads >= rotation.overloads:
            overloads = min(rotation.overloads + 1, 100)
            rotation.overloads, rotation.backs_off_until = overloads, now_ns(cursor) + pause_ns(overloads)
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
    """Add counts to rows of DailyUsage, given by key, model and day; rows that are missing are made."""
    # In a fixed order, so that nobody who adds to the same rows on PostgreSQL waits in a circle.
    for (key_id, model_name, day), numbers in sorted(counts.items(), key=lambda item: item[0]):
        row: tuple[int | str, ...] = (
            *(numbers.get(name, 0) for name in _COUNTERS),
            key_id,
            model_name,
            day.isoformat(),
        )
        cursor.execute(_ADD_USAGE, row)
        if not cursor.rowcount:  # an INSERT each time would write SQLite's table of sequences as well
            cursor.execute(_BEGIN_USAGE, row)
