"""Serving under a path of a reverse proxy, such as https://example.org/gemini/, given by X-Forwarded-Prefix."""

import re

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest, HttpResponseBase
from django.urls import get_script_prefix, set_script_prefix

from proxy.client.address import is_from_trusted_proxy

# Nothing that a browser could mistake for another host or a parent folder.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def take_prefix(request: HttpRequest) -> str:
    """Remove the prefix from the request and return it; return "" if no trusted proxy sent one.

    The proxy may have removed it from the path already. All links made by Django start with the prefix afterwards.
    """
    prefix: str = "/" + request.META["HTTP_X_FORWARDED_PREFIX"].strip().strip("/")
    if not _PREFIX.fullmatch(prefix) or not is_from_trusted_proxy(request.META, settings.TRUSTED_PROXIES):
        return ""
    request.path_info = request.META["PATH_INFO"] = _without(prefix, request.path_info)
    if "RAW_URI" in request.META:
        request.META["RAW_URI"] = _without(prefix, request.META["RAW_URI"])
    request.path = prefix + request.path_info
    request.META["SCRIPT_NAME"] = prefix
    set_script_prefix(f"{prefix}/")
    return prefix


def keep_cookies_below(prefix: str, response: HttpResponseBase) -> None:
    """Restrict our cookies to the prefix, since other services on the host may use cookies with the same names."""
    for cookie in response.cookies.values():
        cookie["path"] = f"{prefix}/"


class PrefixedFiles(StaticFilesStorage):
    """Static files whose addresses start with the prefix of the request."""

    def url(self, name: str | None) -> str:
        return get_script_prefix().rstrip("/") + str(super().url(name))


def _without(prefix: str, path: str) -> str:
    if path == prefix or path.startswith((f"{prefix}/", f"{prefix}?")):
        rest = path.removeprefix(prefix)
        return rest if rest.startswith("/") else f"/{rest}"
    return path
