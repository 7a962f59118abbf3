"""Whether the service can work, what it runs on, and its settings. Of a secret, only whether it is set."""

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import getproxies

import django
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _

from proxy.models import ApiKey, LoggedRequest
from proxy.security.masking import mask_text

# Every variable of docs/settings.md.
SETTINGS = (
    *(
        "PLACEHOLDER_TOKEN",
        "ALLOW_DEFAULT_TOKEN",
        "UPSTREAM_URL",
        "CONNECT_TIMEOUT_SECONDS",
        "READ_TIMEOUT_SECONDS",
        "DEADLINE_SECONDS",
    ),
    *(
        "MAX_BODY_MB",
        "MAX_WAIT_SECONDS",
        "MAX_WAITING",
        "BARE_429",
        "EXHAUSTED_STATUS",
        "SHOW_KEY_NAMES",
        "KEEP_CONVERSATIONS",
        "CORS_ORIGINS",
    ),
    *(
        "REQUEST_LOG_DAYS",
        "QUOTA_TIME_ZONE",
        "BIND",
        "WEB_WORKERS",
        "GRACEFUL_SECONDS",
        "DRAIN_SECONDS",
        "KEY_FILE",
        "DATA_DIR",
    ),
    *("DATABASE_URL", "LOG_DIR", "LOG_LEVEL", "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS"),
    *("HTTPS_ONLY", "CLIENT_TIMEOUT_SECONDS", "TRUSTED_PROXIES"),
)
# Not our own settings, but used for connections to Google.
PROXIES = {"HTTPS_PROXY": "https", "NO_PROXY": "no"}


class Setting(NamedTuple):
    """A setting in force."""

    name: str
    value: str
    # About a value that is not shown: "set", "default", "made" (generated), "password", or "" for no secret.
    secret: str = ""


class Database(NamedTuple):
    """The database in use."""

    vendor: str
    version: str
    # Of the file, or of the database on `host`.
    name: str
    host: str
    # In bytes; None when there is no file.
    size: int | None
    wal_size: int | None


class Migrations(NamedTuple):
    """How many migrations are applied, and the names of those that are not."""

    applied: int
    unapplied: list[str]


def versions() -> list[tuple[str, str]]:
    """Return the versions of Django and Python."""
    return [("Django", django.get_version()), ("Python", platform.python_version())]


def database() -> Database:
    """Return what and where the database is, without its password."""
    values = connection.settings_dict
    name = str(values["NAME"])
    if connection.vendor != "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            [version] = cursor.fetchone()
        host = ":".join(str(values[part]) for part in ("HOST", "PORT") if values.get(part))
        return Database(connection.vendor, str(version), name, host, None, None)
    version = str(connection.Database.sqlite_version)  # type: ignore[attr-defined]  # of this backend
    return Database("sqlite", version, name, "", _size(name), _size(f"{name}-wal"))


def migrations() -> Migrations:
    """Return which migrations the database has. A few queries."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    unapplied = [f"{migration.app_label}.{migration.name}" for migration, _is_backwards in plan]
    return Migrations(len(executor.loader.applied_migrations), unapplied)


def obstacles() -> list[str]:
    """Return what keeps requests from being answered: database, migrations, or no usable key. Empty if nothing does."""
    try:
        if migrations().unapplied:
            return [_("The database is not migrated. Run `python manage.py migrate`.")]
        if not ApiKey.objects.usable().exists():
            return [
                _("The pool has no usable key. Add keys in the admin, or run `python manage.py importkeys key.txt`.")
            ]
    except DatabaseError:
        return [_("The database does not answer.")]
    return []


def logged_rows() -> int:
    """Return the approximate size of the log, since counting a million rows would take a second. Two queries."""
    ids = LoggedRequest.objects.values_list("id", flat=True)
    first, last = ids.order_by("id").first(), ids.order_by("-id").first()
    return last - first + 1 if first is not None and last is not None else 0


def settings_in_force() -> list[Setting]:
    """Return every setting, and the proxy to Google."""
    proxies = getproxies()
    ours = [
        _SECRETS[name]() if name in _SECRETS else Setting(name, _text(getattr(settings, name))) for name in SETTINGS
    ]
    return ours + [Setting(name, _without_user(proxies.get(key, ""))) for name, key in PROXIES.items()]


def _upstream_url() -> Setting:
    return Setting("UPSTREAM_URL", _without_user(settings.UPSTREAM_URL))


def _token() -> Setting:
    is_default = settings.PLACEHOLDER_TOKEN == settings.DEFAULT_TOKEN
    return Setting("PLACEHOLDER_TOKEN", "", "default" if is_default else "set")


def _secret_key() -> Setting:
    path = settings.DATA_DIR / "secret_key"
    try:
        is_made = path.read_text().strip() == settings.SECRET_KEY
    except OSError:
        is_made = False
    return Setting("SECRET_KEY", "", "made" if is_made else "set")


def _database_url() -> Setting:
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return Setting("DATABASE_URL", f"sqlite:///{values['NAME']}")
    host = ":".join(str(values[part]) for part in ("HOST", "PORT") if values.get(part))
    secret = "password" if values.get("PASSWORD") else ""
    return Setting("DATABASE_URL", f"{connection.vendor}://{host}/{values['NAME']}", secret)


_SECRETS = {
    "PLACEHOLDER_TOKEN": _token,
    "SECRET_KEY": _secret_key,
    "DATABASE_URL": _database_url,
    "UPSTREAM_URL": _upstream_url,
}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(map(str, value))
    return mask_text(str(value))


def _without_user(address: str) -> str:
    """Return an address without its user name and password, if any."""
    _before, at, after = address.rpartition("@")
    scheme = re.match(r"[a-z]+://|", address)
    return mask_text(f"{scheme[0] if scheme else ''}…@{after}" if at else address)


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None
