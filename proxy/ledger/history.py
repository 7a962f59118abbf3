"""Records finished requests in the ledger's transaction: a row in the log, and hourly sums."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from proxy.gemini.tokens import Tokens
from proxy.ledger.minute_window import adapt
from proxy.ledger.summed_tables import addition_to, identity_of, numbers_of
from proxy.models import FirstByte, KeyHour, LoggedRequest, ModelHour, Outcome
from proxy.models.history import first_byte_step

NO_TOKENS = Tokens()
CLIENT_LEFT = 499  # what nginx calls it


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request that is over. The fields are those of `LoggedRequest`."""

    began: datetime
    request_id: str
    method: str
    action: str
    model_name: str
    attempts: Sequence[tuple[int, int]]
    status: int
    waited_ms: int
    first_byte_ms: int | None
    duration_ms: int
    tokens: Tokens = NO_TOKENS
    # No key was left for it.
    is_refused: bool = False

    @property
    def outcome(self) -> Outcome:
        if self.is_refused or self.status == 429:
            return Outcome.REFUSED
        if self.status >= 400:
            return Outcome.FAILED
        return Outcome.AT_ONCE if len(self.attempts) == 1 else Outcome.AFTER_FAIL_OVER

    @property
    def hour(self) -> datetime:
        return self.began.replace(minute=0, second=0, microsecond=0)


def write_history(cursor: CursorWrapper, finished: Sequence[FinishedRequest], *, has_log: bool) -> None:
    """Add finished requests to their hourly sums, and to the log if there is one."""
    if not finished:
        return
    if has_log:
        cursor.executemany(_LOG, [_log_row(cursor, request) for request in finished])
    models: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    first_bytes: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    keys: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for request in finished:
        hour = adapt(cursor, request.hour)
        sums = models[hour, request.model_name]
        sums[request.outcome.name.lower()] += 1
        for name, number in request.tokens._asdict().items():
            sums[f"{name}_tokens"] += number
        if request.first_byte_ms is not None and request.status < 400:
            first_bytes[hour, request.model_name, first_byte_step(request.first_byte_ms)]["answers"] += 1
        for key_id, status in request.attempts:
            of_key = keys[key_id, hour]
            of_key["refusals" if status == 429 else "answers"] += 1
            of_key["errors"] += int(status != 429 and not 0 < status < 400)
    _add(cursor, ModelHour, models)
    _add(cursor, FirstByte, first_bytes)
    _add(cursor, KeyHour, keys)


_LOG_FIELDS = tuple(str(field.column) for field in LoggedRequest._meta.concrete_fields if field.name != "id")
_LOG = (
    f"INSERT INTO {LoggedRequest._meta.db_table} ({', '.join(_LOG_FIELDS)}) "
    f"VALUES ({', '.join(['%s'] * len(_LOG_FIELDS))})"
)


def _log_row(cursor: CursorWrapper, request: FinishedRequest) -> tuple[Any, ...]:
    key_id = request.attempts[-1][0] if request.attempts else None
    return (
        adapt(cursor, request.began),
        request.request_id,
        request.method[:20],
        request.action[:60],
        request.model_name[:200],
        key_id,
        json.dumps(request.attempts),
        request.status,
        int(request.outcome),
        request.waited_ms,
        request.first_byte_ms,
        request.duration_ms,
        *request.tokens,
    )


def _add(cursor: CursorWrapper, model: type[Model], sums: Mapping[tuple[Any, ...], Mapping[str, int]]) -> None:
    """Add `sums` to the rows of `model`, given by primary key."""
    names = numbers_of(model)
    rows = [
        (*row, *(numbers.get(name, 0) for name in names))
        for row, numbers in sorted(sums.items(), key=lambda item: tuple(map(str, item[0])))
    ]
    values = ", ".join(["%s"] * (len(identity_of(model)) + len(names)))
    cursor.executemany(addition_to(model, f"VALUES ({values})"), rows)
