"""Splits a sample quota day into hours, by model, by key and by time to the first byte. No database."""

import math
import random
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from proxy.demo.plan import MODELS
from proxy.demo.usage import Day, spread
from proxy.models.history import first_byte_step

_SIGMA_STEPS = 2.6  # the natural logarithm of a time has a standard deviation of 0.45
_STEPS = range(-8, 11)


class HourRow(NamedTuple):
    """Fields of ModelHour, in its order."""

    hour: datetime
    model_name: str
    at_once: int
    after_fail_over: int
    refused: int
    failed: int
    prompt: int
    output: int
    thinking: int
    cached: int

    @property
    def outcomes(self) -> tuple[int, int, int, int]:
        """The number of requests with each outcome, in the order of `Outcome`."""
        return self[2:6]


class KeyRow(NamedTuple):
    """Fields of KeyHour, in its order."""

    key_id: int
    hour: datetime
    answers: int
    errors: int
    refusals: int


class StepRow(NamedTuple):
    """Fields of FirstByte, in its order."""

    hour: datetime
    model_name: str
    step: int
    answers: int


def model_hours(day: Day, rng: random.Random) -> Iterator[HourRow]:
    """Yield the hours of each model. The answered and failed requests add up to the day's answers."""
    for model_name, sums in day.by_model().items():
        good = sums.answers - sums.errors
        after_fail_over = min(sums.refusals, good)
        refused = int(sums.answers * (0.05 if day.is_bad else 0.004) + rng.random())
        outcomes = [
            spread(total, day.shares, rng) for total in (good - after_fail_over, after_fail_over, refused, sums.errors)
        ]
        # Only answered requests have tokens.
        answered = list(accumulate(map(sum, zip(*outcomes[:2], strict=True))))
        shares = [number / answered[-1] for number in answered] if good else day.shares
        tokens = [spread(total, shares, rng) for total in sums[3:]]
        for row in zip(day.hours, *outcomes, *tokens, strict=True):
            if any(row[1:]):
                yield HourRow(row[0], model_name, *row[1:])


def key_hours(day: Day, rng: random.Random) -> Iterator[KeyRow]:
    """Yield the hours of each key."""
    for key_id, sums in day.by_key().items():
        good = spread(sums.answers - sums.errors, day.shares, rng)
        errors = spread(sums.errors, day.shares, rng)
        refusals = spread(sums.refusals, day.shares, rng)
        for hour, right, wrong, refused in zip(day.hours, good, errors, refusals, strict=True):
            if right or wrong or refused:
                yield KeyRow(key_id, hour, right + wrong, wrong, refused)


def first_bytes(row: HourRow, *, is_bad: bool, rng: random.Random) -> Iterator[StepRow]:
    """Spread the answers of an hour over the steps of the first-byte histogram."""
    median = first_byte_ms(row.model_name, is_bad=is_bad) * rng.lognormvariate(0, 0.15)
    middle = first_byte_step(round(median))
    for distance, answers in zip(_STEPS, spread(row.at_once + row.after_fail_over, _NORMAL, rng), strict=True):
        if answers:
            yield StepRow(row.hour, row.model_name, middle + distance, answers)


def first_byte_ms(model_name: str, *, is_bad: bool) -> float:
    """Return the median time to a model's first byte, in milliseconds."""
    return MODELS[model_name].first_byte_ms * (2.3 if is_bad else 1)


def _normal() -> list[float]:
    """Return the cumulative share of answers for each step. The last is 1."""
    shares = [(1 + math.erf((step + 0.5) / _SIGMA_STEPS / math.sqrt(2))) / 2 for step in _STEPS]
    return [*shares[:-1], 1.0]


_NORMAL = _normal()
