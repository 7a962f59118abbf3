"""The default token is public, so it is accepted only from this machine and private networks."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from proxy.client.address import is_from_private_network
from proxy.client.cors import is_allowed
from proxy.client.errors import RequestRefused

WHAT_TO_DO = "Run `python manage.py newtoken` to make your own token, or set ALLOW_DEFAULT_TOKEN=on."


def check_default_token(meta: Mapping[str, Any]) -> None:
    """Raise RequestRefused for the default token from a public address or a foreign web page.

    meta: HttpRequest.META
    """
    if settings.PLACEHOLDER_TOKEN != settings.DEFAULT_TOKEN or settings.ALLOW_DEFAULT_TOKEN:
        return
    if not is_from_private_network(meta):
        raise RequestRefused(
            401,
            "UNAUTHENTICATED",
            f"The default token is accepted from this machine and private networks only. {WHAT_TO_DO}",
        )
    if is_from_foreign_page(meta):
        raise RequestRefused(
            403, "PERMISSION_DENIED", f"The default token is not accepted from web pages of other sites. {WHAT_TO_DO}"
        )


def is_from_foreign_page(meta: Mapping[str, Any]) -> bool:
    """Tell whether a browser sends this request for a page of another host.

    The origins in CORS_ORIGINS pass. So do apps and extensions, since the scheme of their origin is one that no page
    has. Against DNS rebinding, where a foreign host name leads here, browsers must use an IP address or a local name.
    """
    site, origin = meta.get("HTTP_SEC_FETCH_SITE", ""), meta.get("HTTP_ORIGIN", "")
    if not (site or origin) or is_allowed(origin):  # no browser sends neither
        return False
    if site == "cross-site" or origin == "null":
        return True
    is_page = origin.startswith(("http://", "https://"))
    host = _host_name(f"//{meta.get('HTTP_HOST', '')}")
    if is_page and _host_name(origin) != host:
        return True
    return (is_page or bool(site)) and not _is_local(host)


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local"))
    return True
