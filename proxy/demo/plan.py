"""The keys, projects and models of the sample pool. No database."""

import random
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from typing import NamedTuple

from proxy.gemini.refusals import Limits

_LETTERS = string.ascii_letters + string.digits + "_-"
_NAMES = ("search", "chat", "summaries", "translation", "support", "reports", "newsletter", "tagging", "mail", "notes")
_KEYS_OF_PROJECTS = (1, 2, 1, 1, 3, 1, 1, 5)  # repeated from the start
_WITHOUT_A_NAME = 4  # every fourth project: its name is unknown, so it has one key
_WITHOUT_LIMITS = 6  # every sixth project: Google has not reported its limits yet
_PAID = 9  # every ninth project: its limits are those of a paid tier


class ModelPlan(NamedTuple):
    """A model, and what its requests are like."""

    # Of the free tier.
    limits: Limits
    # The share of the daily limit that is used on an ordinary day.
    share: float
    # The median.
    first_byte_ms: int
    action: str
    # The average tokens of an answer.
    prompt: int
    output: int
    thinking: int
    cached: int


MODELS = {
    "gemini-2.5-flash": ModelPlan(Limits(10, 250_000, 100), 0.62, 900, "generateContent", 1_100, 320, 240, 90),
    "gemini-2.5-pro": ModelPlan(Limits(5, 250_000, 40), 0.66, 4_200, "streamGenerateContent", 2_600, 780, 1_400, 300),
    "gemini-2.5-flash-lite": ModelPlan(Limits(15, 250_000, 200), 0.5, 420, "generateContent", 600, 140, 0, 40),
    "gemini-3-pro-preview": ModelPlan(
        Limits(5, 250_000, 20), 0.7, 5_600, "streamGenerateContent", 3_100, 900, 2_300, 350
    ),
    "gemini-embedding-001": ModelPlan(Limits(100, 30_000, 200), 0.4, 160, "embedContent", 380, 0, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to create."""

    keys: int = 40
    days: int = 120
    log_rows: int = 5000
    # The limits of every project, as a multiple of the free tier's.
    factor: int = 1
    # The share of keys that were added after the first day.
    late: float = 0.3


@dataclass(slots=True)
class DemoKey:
    """A key of the pool."""

    name: str
    secret: str
    # 0 until the key is in the database.
    id: int = 0
    # The first and the last quota day on which it is used.
    first: date = date.min
    last: date = date.max


@dataclass(slots=True)
class DemoProject:
    """A project with its keys."""

    # "" if the name is unknown.
    name: str
    # Its limits, as a multiple of the free tier's.
    factor: int
    has_known_limits: bool
    # Its requests, as a multiple of an average project's.
    appetite: float
    keys: list[DemoKey] = field(default_factory=list)
    id: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)

    def limits_of(self, model_name: str) -> Limits:
        return Limits(*(number * self.factor for number in MODELS[model_name].limits if number))


def projects(plan: Plan, rng: random.Random) -> list[DemoProject]:
    """Return projects that have `plan.keys` keys between them."""
    made: list[DemoProject] = []
    left = plan.keys
    for number, name in enumerate(_names()):
        if not left:
            return made
        is_named = number % _WITHOUT_A_NAME != _WITHOUT_A_NAME - 1
        size = min(_KEYS_OF_PROJECTS[number % len(_KEYS_OF_PROJECTS)] if is_named else 1, left)
        left -= size
        made.append(
            DemoProject(
                name if is_named else "",
                # Projects with more keys also get more requests.
                factor=plan.factor * (4 if number % _PAID == _PAID - 1 else 1) * (2 if size > 2 else 1),
                has_known_limits=number % _WITHOUT_LIMITS != _WITHOUT_LIMITS - 1,
                appetite=rng.lognormvariate(-0.1, 0.35),
                keys=[DemoKey(f"{name}-{key}" if size > 1 else name, _secret(rng)) for key in range(1, size + 1)],
            )
        )
    return made


def _secret(rng: random.Random) -> str:
    """Return text that looks like a key but cannot be one: real keys do not start with AIzaDEMO."""
    return "AIzaDEMO" + "".join(rng.choices(_LETTERS, k=31))


def _names() -> Iterator[str]:
    for turn in count(1):
        yield from _NAMES if turn == 1 else (f"{name}-{turn:02}" for name in _NAMES)
