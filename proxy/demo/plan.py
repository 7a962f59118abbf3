"""Which keys, projects and models the made-up pool has. No database."""

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
_KEYS_OF_PROJECTS = (1, 2, 1, 1, 3, 1, 1, 5)  # and again from the beginning
_WITHOUT_A_NAME = 4  # each fourth project: its name is not known, so it has one key
_WITHOUT_LIMITS = 6  # each sixth project: Google has told no limit yet
_PAID = 9


class ModelPlan(NamedTuple):
    """limits: of the free tier. share: of a day's requests that are asked on an ordinary day.

    first_byte_ms: the median. Tokens: of an answer, on average.
    """

    limits: Limits
    share: float
    first_byte_ms: int
    action: str
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
    """How much there is to be. factor: how many times the limits of the free tier every project has.

    late: the share of keys that joined the pool after the first day.
    """

    keys: int = 40
    days: int = 120
    log_rows: int = 5000
    factor: int = 1
    late: float = 0.3


@dataclass(slots=True)
class DemoKey:
    """A key of the pool, from the first to the last of its quota days. id: 0 until it is in the database."""

    name: str
    secret: str
    id: int = 0
    first: date = date.min
    last: date = date.max


@dataclass(slots=True)
class DemoProject:
    """A project with its keys. name: "" while it is not known. appetite: how much more than others it asks."""

    name: str
    factor: int
    has_known_limits: bool
    appetite: float
    keys: list[DemoKey] = field(default_factory=list)
    id: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)

    def limits_of(self, model_name: str) -> Limits:
        return Limits(*(number * self.factor for number in MODELS[model_name].limits if number))


def projects(plan: Plan, rng: random.Random) -> list[DemoProject]:
    """Return projects with as many keys as planned."""
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
                # With several keys, more is asked of it, too.
                factor=plan.factor * (4 if number % _PAID == _PAID - 1 else 1) * (2 if size > 2 else 1),
                has_known_limits=number % _WITHOUT_LIMITS != _WITHOUT_LIMITS - 1,
                appetite=rng.lognormvariate(-0.1, 0.35),
                keys=[DemoKey(f"{name}-{key}" if size > 1 else name, _secret(rng)) for key in range(1, size + 1)],
            )
        )
    return made


def _secret(rng: random.Random) -> str:
    """Return what looks like a key, and can be none: the fourth to the eighth letter of no real key are DEMO."""
    return "AIzaDEMO" + "".join(rng.choices(_LETTERS, k=31))


def _names() -> Iterator[str]:
    for turn in count(1):
        yield from _NAMES if turn == 1 else (f"{name}-{turn:02}" for name in _NAMES)
