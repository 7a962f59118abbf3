"""Adding many keys to the pool, for the admin and the commands."""

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
    """How many keys were new, and how many were in the pool before."""

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
    """Put those of `secrets` that are new into the pool; known ones stay as they are.

    names: by secret, for keys with a name of their own; all others are called `name`.

    Commits 500 keys at a time, and leaves the database to others for as long in between: requests go on meanwhile.
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
                ApiKey(secret=secret, name=names.get(secret, name), project=its, is_enabled=is_enabled)
                for secret, its in zip(fresh, projects, strict=True)
            )
            Quota.objects.recompute((its.pk for its in projects), moment)
        new += len(fresh)
        if start + _CHUNK < len(secrets) and not connection.in_atomic_block:
            time.sleep(time.monotonic() - began)
    return Added(new, len(secrets) - new)


def _projects(name: str, count: int) -> list[Project]:
    """Return the project of this name so many times; without a name, a new one each."""
    if name and count:
        return [Project.objects.named(name)] * count
    return Project.objects.bulk_create(Project() for _ in range(count))


def count_new(secrets: list[str]) -> int:
    """Return how many of `secrets` are not in the pool; writes nothing."""
    return len(secrets) - len(find_known(secrets))


def find_known(secrets: list[str]) -> set[str]:
    """Return those of `secrets` that are in the pool; a query for every 500."""
    known: set[str] = set()
    for start in range(0, len(secrets), _CHUNK):
        keys = ApiKey.objects.filter(secret__in=secrets[start : start + _CHUNK])
        known.update(secret for secret in keys.values_list("secret", flat=True) if secret)
    return known


def _unknown(secrets: list[str]) -> list[str]:
    known = find_known(secrets)
    return [secret for secret in secrets if secret not in known]
