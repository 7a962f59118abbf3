"""Sample rows of the request log, drawn from the hourly sums. No database."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

from proxy.demo.hours import HourRow, first_byte_ms
from proxy.demo.plan import MODELS
from proxy.demo.usage import HOUR
from proxy.models import Outcome

_FAILURES = [(400, 3), (404, 1), (500, 2), (502, 1), (503, 5), (499, 1)]
_RECENT = 8  # this many requests began in the last minutes


class Logged(NamedTuple):
    """Fields of LoggedRequest, in its order, without the ID."""

    began: datetime
    request_id: str
    method: str
    action: str
    model_name: str
    attempts: str
    status: int
    outcome: int
    waited_ms: int
    first_byte_ms: int | None
    duration_ms: int
    prompt: int
    output: int
    thinking: int
    cached: int
    key_id: int | None


def log(
    rows: Sequence[HourRow], number: int, keys: Sequence[int], moment: datetime, *, refused: int, rng: random.Random
) -> Iterator[Logged]:
    """Yield `number` requests, oldest first, in the hours of `rows`. refused: the status when no key was available."""
    if not rows or not keys:
        return
    weights = list(accumulate(sum(row.outcomes) for row in rows))
    drawn = rng.choices(rows, cum_weights=weights, k=number)
    begun = sorted((_within(row.hour, moment, rng), position) for position, row in enumerate(drawn))
    for place, (began, position) in enumerate(begun):
        row = drawn[position]
        if place >= number - _RECENT:
            began = max(began, moment - timedelta(seconds=(number - place) * 37))
        outcome = rng.choices(list(Outcome), row.outcomes)[0]
        yield _request(row, began, outcome, *_attempts(outcome, keys, refused, rng), rng=rng)


def _within(hour: datetime, moment: datetime, rng: random.Random) -> datetime:
    return hour + rng.random() * min(HOUR, max(moment - hour, timedelta(seconds=1)))


def _request(
    row: HourRow,
    began: datetime,
    outcome: Outcome,
    status: int,
    attempts: Sequence[Sequence[int]],
    *,
    rng: random.Random,
) -> Logged:
    model = MODELS[row.model_name]
    is_answered = status < 400
    waited = int(rng.lognormvariate(7, 1)) if len(attempts) != 1 and rng.random() < 0.3 else 0
    has_first_byte = is_answered or outcome is Outcome.FAILED
    typical = first_byte_ms(row.model_name, is_bad=False)
    first = waited + int(typical * rng.lognormvariate(0, 0.45) * (1 if is_answered else 0.2)) + 40 * len(attempts)
    size = rng.lognormvariate(-0.1, 0.5)
    duration = first + (int(model.output * size * 5) if is_answered else 3)
    prompt, output, thinking, cached = (int(mean * size) if is_answered else 0 for mean in model[4:])
    key_id = attempts[-1][0] if attempts else None
    return Logged(
        began, f"{rng.getrandbits(64):016x}", "POST", model.action, row.model_name, json.dumps(attempts), status,
        int(outcome), waited, first if has_first_byte else None, duration, prompt, output, thinking, cached, key_id,
    )  # fmt: skip


def _attempts(outcome: Outcome, keys: Sequence[int], refused: int, rng: random.Random) -> tuple[int, list[list[int]]]:
    """Return the status that the client got, and the key ID and status of each attempt."""
    if outcome is Outcome.AT_ONCE:
        return 200, [[rng.choice(keys), 200]]
    several = rng.sample(keys, min(rng.choice((2, 2, 2, 3)), len(keys)))
    failed_over = [[key_id, rng.choice((429, 429, 429, 503))] for key_id in several[:-1]]
    if outcome is Outcome.AFTER_FAIL_OVER:
        return 200, [*failed_over, [several[-1], 200]]
    if outcome is Outcome.REFUSED:
        return refused, [[key_id, 429] for key_id in several] if rng.random() < 0.6 else []
    [status] = rng.choices([status for status, _ in _FAILURES], [weight for _, weight in _FAILURES])
    return status, [[several[-1], 0 if status in (499, 502) else status]]
