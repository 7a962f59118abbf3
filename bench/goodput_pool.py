"""The projects of the simulation, with keys and limits like those of Google's tiers.

`python -m bench.goodput_pool fill` adds their keys to the product's database; `set-limits` sets their limits.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

FLASH, LITE = "gemini-2.5-flash", "gemini-2.5-flash-lite"


class Limit(NamedTuple):
    """The limits of a project for a model: requests per minute and per day, input tokens per minute. None: no limit."""

    per_minute: int
    per_day: int | None = None
    tokens_per_minute: int | None = None


class Tier(NamedTuple):
    """Projects with the same limits. is_named: the pool knows which keys belong to one project."""

    name: str
    projects: int
    keys_of_each: int
    is_named: bool
    limits: dict[str, Limit]


class Project(NamedTuple):
    """One project; `limits` by model."""

    name: str
    secrets: list[str]
    is_named: bool
    limits: dict[str, Limit]


TIERS = [
    Tier("free-5", 4, 1, False, {FLASH: Limit(5, 20), LITE: Limit(10, 20)}),
    Tier("free-10", 4, 1, False, {FLASH: Limit(10, 25), LITE: Limit(15, 30)}),
    Tier("free-15", 3, 1, False, {FLASH: Limit(15, 40), LITE: Limit(15, 60)}),
    Tier("family", 1, 3, True, {FLASH: Limit(10, 30), LITE: Limit(15, 50)}),
    Tier("team", 1, 2, True, {FLASH: Limit(15), LITE: Limit(20)}),
    Tier("tokens", 2, 1, False, {FLASH: Limit(30, None, 4_000), LITE: Limit(30, None, 3_000)}),
    Tier("paid", 1, 2, True, {FLASH: Limit(60), LITE: Limit(100)}),
]


def projects() -> Iterator[Project]:
    """Yield every project of TIERS. The secrets are the same each time."""
    number = 0
    for tier in TIERS:
        for index in range(1, tier.projects + 1):
            secrets = [f"AIza{number + key:035}" for key in range(tier.keys_of_each)]
            number += tier.keys_of_each
            name = f"{tier.name}-{index}" if tier.projects > 1 else tier.name
            yield Project(name, secrets, tier.is_named, tier.limits)


def fill() -> None:
    """Create the database and add all keys, with the names of those projects that the pool knows."""
    import django  # noqa: PLC0415  # only the child process is a Django

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    from proxy.pool.adding import add_keys  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    for project in projects():
        add_keys(project.secrets, timezone.now(), project=project.name if project.is_named else "")


def set_limits() -> None:
    """Set all limits, so that none has to be learned from a 429."""
    import django  # noqa: PLC0415  # only the child process is a Django

    django.setup()
    from django.utils import timezone  # noqa: PLC0415

    from proxy.models import GeminiModel, Quota  # noqa: PLC0415
    from proxy.models.quotas import SET_NAMES  # noqa: PLC0415

    for project in projects():
        for model, limit in project.limits.items():
            GeminiModel.objects.begin(model)
            quota = Quota.objects.filter(project__keys__secret=project.secrets[0], model_name=model)
            limits = (limit.per_minute, limit.tokens_per_minute, limit.per_day)
            quota.set_limits(timezone.now(), **dict(zip(SET_NAMES, limits, strict=True)))


if __name__ == "__main__":
    {"fill": fill, "set-limits": set_limits}[sys.argv[1]]()
