"""Adds keys to the pool, for the admin and the commands."""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from django.db import connection, transaction

from proxy.models import ApiKey, Project, Quota

_CHUNK = 500
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class Added(NamedTuple):
    """How many keys were new, and how many were in the pool already."""

    new: int
    known: int


def add_keys(
    secrets: Iterable[str],
    moment: datetime,
    *,
    name: str = "",
    names: Mapping[str, str] = _NO_NAMES,
    project: str = "",
    is_enabled: bool = True,
) -> Added:
    """Add the new keys among `secrets` to the pool. Known keys are unchanged.

    names: the names of single keys, by secret. name: of all other keys.

    Commits 500 keys at a time, and leaves the database to requests for just as long in between.
    """
    secrets = list(dict.fromkeys(secrets))
    new = 0
    for start in range(0, len(secrets), _CHUNK):
        began = time.monotonic()
        chunk = secrets[start : start + _CHUNK]
        with transaction.atomic():
            fresh = _unknown(chunk)
            projects = _projects(project, len(fresh))
            ApiKey.objects.bulk_create(
                ApiKey(secret=secret, name=names.get(secret, name), project=owner, is_enabled=is_enabled)
                for secret, owner in zip(fresh, projects, strict=True)
            )
            Quota.objects.recompute((owner.pk for owner in projects), moment)
        new += len(fresh)
        if start + _CHUNK < len(secrets) and not connection.in_atomic_block:
            time.sleep(time.monotonic() - began)
    return Added(new, len(secrets) - new)


def _projects(name: str, count: int) -> list[Project]:
    """Return the project with this name `count` times; without a name, `count` new projects."""
    if name and count:
        return [Project.objects.named(name)] * count
    return Project.objects.bulk_create(Project() for _ in range(count))


def count_new(secrets: list[str]) -> int:
    """Return how many of `secrets` are not in the pool."""
    return len(secrets) - len(find_known(secrets))


def find_known(secrets: list[str]) -> set[str]:
    """Return the `secrets` that are in the pool. One query per 500."""
    known: set[str] = set()
    for start in range(0, len(secrets), _CHUNK):
        keys = ApiKey.objects.filter(secret__in=secrets[start : start + _CHUNK])
        known.update(secret for secret in keys.values_list("secret", flat=True) if secret)
    return known


def _unknown(secrets: list[str]) -> list[str]:
    known = find_known(secrets)
    return [secret for secret in secrets if secret not in known]
