"""What Google projects own: files, caches, batches, stores and the like."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import models

from proxy.models.keys import ApiKey

# How long it is remembered that no project has a resource.
_NOBODY_LASTS = timedelta(minutes=5)
# A client's next creation prefers the project of its last one for this long.
_HOME_LASTS = timedelta(hours=48)


class Owner(NamedTuple):
    """The key that made a resource, and its project."""

    key_id: int
    project_id: int


class ResourceQuerySet(models.QuerySet["Resource"]):
    """Resources of Google projects."""

    def owners(self, names: Iterable[str], moment: datetime) -> dict[str, Owner | None]:
        """Return the owners of those of `names` that are known; None if no project has the resource."""
        known = self.filter(name__in=names, expires_at__gt=moment).values_list("name", "key_id", "key__project_id")
        return {name: Owner(key_id, project_id) if key_id else None for name, key_id, project_id in known}

    def home_of(self, client: str, moment: datetime) -> int | None:
        """Return the project of the client's last creation."""
        made = self.filter(client=client, made_at__gt=moment - _HOME_LASTS, key__isnull=False)
        return made.order_by("-made_at").values_list("key__project_id", flat=True).first()

    def project_with(self, kind: str, tried: Iterable[int], moment: datetime) -> int | None:
        """Return a project that owns resources of a kind, such as "files", apart from those in `tried`."""
        owned = self.filter(name__startswith=f"{kind}/", expires_at__gt=moment, key__isnull=False)
        return owned.exclude(key__project__in=tried).values_list("key__project_id", flat=True).first()

    def remember(self, key_id: int, client: str, expiries: Mapping[str, datetime], moment: datetime) -> None:
        """Store which key made the resources, and when they expire.

        client: who had them made, "" if it is not known.
        """
        rows = [
            Resource(name=name, key_id=key_id, client=client, made_at=moment, expires_at=until)
            for name, until in sorted(expiries.items())
        ]
        changed = ["key", "expires_at", *(["client", "made_at"] if client else [])]
        self.bulk_create(rows, update_conflicts=True, unique_fields=["name"], update_fields=changed)

    def remember_nobody(self, name: str, moment: datetime) -> None:
        """Store that no project has a resource, unless an owner has become known."""
        self.filter(name=name, expires_at__lte=moment).delete()
        until = moment + _NOBODY_LASTS
        self.get_or_create(name=name, defaults={"client": "", "made_at": moment, "expires_at": until})


class Resource(models.Model):
    """Something that belongs to one Google project, so that requests that name it must use a key of that project."""

    # As in Google's API, such as `files/abc`.
    name = models.CharField(max_length=300, unique=True)
    # The key that made it; empty when no project has it.
    key = models.ForeignKey(ApiKey, models.CASCADE, null=True, related_name="+")
    # A digest of the address of the client that had it made; "" if that is not known.
    client = models.CharField(max_length=64)
    made_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    objects = ResourceQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["client", "made_at"], name="resource_home")]

    def __str__(self) -> str:
        return self.name
