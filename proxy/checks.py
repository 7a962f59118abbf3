"""System checks: settings that are well-formed but wrong."""

import re
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import DatabaseError, connection
from django.utils.translation import gettext as _
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from proxy.upstream.outbound_proxy import BadProxy, proxy_for

_SHORTEST_SECRET = 20
_FIRST_SAFE_SQLITE = (3, 51, 3)
_WITHOUT_BLANKS = re.compile(r"[!-~]+")


@register()
def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Report settings that cannot work, such as an empty token or an invalid UPSTREAM_URL."""
    found: list[CheckMessage] = []
    if not settings.PLACEHOLDER_TOKEN.strip():
        found.append(
            Error(
                _("PLACEHOLDER_TOKEN is empty, so no client can send it."),
                hint=_("Remove the variable to use the default, or set a long random text."),
                id="proxy.E001",
            )
        )
    found += _about_upstream()
    if settings.EXHAUSTED_STATUS not in (429, 503):
        found.append(Error(_("EXHAUSTED_STATUS is neither 503 nor 429."), id="proxy.E003"))
    if not all(_is_address(address.strip()) for address in settings.BIND.split(",")):
        found.append(
            Error(
                _("BIND is not an address with a port."),
                hint=_("Example: %(example)s") % {"example": "0.0.0.0:5000"},
                id="proxy.E004",
            )
        )
    if len(settings.SECRET_KEY) < _SHORTEST_SECRET:
        found.append(
            CheckWarning(
                _("SECRET_KEY is too short. Others can guess it and log in."),
                hint=_("Remove the variable. A long key is then generated and stored in DATA_DIR."),
                id="proxy.W003",
            )
        )
    return found


def _is_address(text: str) -> bool:
    """Tell whether this is an address to listen on: a host name or IP address (IPv6 in brackets), and a port."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})", text)
    if not found or not 0 < int(found[3]) < 65_536:
        return False
    try:
        if found[1] or re.fullmatch(r"[\d.]+", found[2]):
            ip_address(found[1] or found[2])
    except ValueError:
        return False
    return True


def _about_upstream() -> list[CheckMessage]:
    """Report problems with UPSTREAM_URL and the proxy, without user names and passwords."""
    try:
        upstream = parse_url(settings.UPSTREAM_URL)
    except LocationParseError:
        upstream = parse_url("")
    example = _("Example: %(example)s") % {"example": "https://generativelanguage.googleapis.com"}
    if (
        upstream.scheme not in ("http", "https")
        or not upstream.host
        or not _WITHOUT_BLANKS.fullmatch(settings.UPSTREAM_URL)
    ):
        return [Error(_("UPSTREAM_URL is not a valid URL."), hint=example, id="proxy.E002")]
    if upstream.auth or upstream.query is not None or upstream.fragment is not None:
        return [
            Error(
                _("UPSTREAM_URL has a user name, a query or a fragment, which would not be sent."),
                hint=example,
                id="proxy.E002",
            )
        ]
    found: list[CheckMessage] = []
    if settings.UPSTREAM_VERSION:
        found.append(
            CheckWarning(
                _("UPSTREAM_URL ends in %(version)s, but clients send the version themselves. %(url)s is used.")
                % {"version": settings.UPSTREAM_VERSION, "url": settings.UPSTREAM_URL},
                id="proxy.W002",
            )
        )
    try:
        proxy_for(upstream)
    except BadProxy as exc:
        message = _("%(name)s is a SOCKS proxy, which the relay cannot use.")
        if not exc.is_socks:
            message = _("%(name)s is not the address of an HTTP proxy.")
        hint = _("Example: %(example)s") % {"example": "http://user:password@127.0.0.1:8080"}
        encoded = _("Percent-encode special characters in the password: @ becomes %(encoded)s.") % {"encoded": "%40"}
        found.append(Error(message % {"name": exc.name}, hint=f"{hint}. {encoded}", id="proxy.E005"))
    return found


@register()
def check_sqlite(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn about SQLite versions that can corrupt a database in WAL mode."""
    if connection.vendor != "sqlite":
        return []
    from proxy.sqlite.base import Database  # noqa: PLC0415  # importing it chooses the library

    if Database.sqlite_version_info >= _FIRST_SAFE_SQLITE:
        return []
    return [
        CheckWarning(
            _("SQLite %(version)s can corrupt a database under load (WAL-reset bug, sqlite.org/wal.html).")
            % {"version": Database.sqlite_version},
            hint=_("Install pysqlite3 0.6.1 or later if it has a wheel for this platform, or use PostgreSQL."),
            id="proxy.W001",
        )
    ]


@register(Tags.database)
def check_database(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a database that cannot be opened or belongs to another program. Runs with `check --database`."""
    if not databases:
        return []
    try:
        tables = connection.introspection.table_names()
    except DatabaseError as exc:
        return [
            Error(
                _("The database cannot be used: %(error)s.") % {"error": " ".join(str(exc).split()).rstrip(".")},
                hint=_("Check DATABASE_URL and DATA_DIR."),
                id="proxy.E006",
            )
        ]
    if tables and "django_migrations" not in tables:
        return [
            Error(
                _("The database belongs to another program."),
                hint=_("Point DATABASE_URL to an empty or new database."),
                id="proxy.E007",
            )
        ]
    return []
