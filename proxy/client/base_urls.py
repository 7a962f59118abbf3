"""The base URLs that clients should use, for clients whose paths show that they use another one."""

import logging
from urllib.parse import unquote

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.urls import get_script_prefix

from proxy.gemini.paths import Oddity
from proxy.security.masking import mask_text

logger = logging.getLogger(__name__)

_logged: set[Oddity] = set()


def base_urls(request: HttpRequest) -> str:
    """Return a sentence with the base URLs of this key manager, under the host name that the client used."""
    try:
        url = request.build_absolute_uri(get_script_prefix()).rstrip("/")
    except DisallowedHost:
        return "Use the address of this key manager as the base URL for Gemini clients; add /v1 for OpenAI clients."
    return f"Use {url} as the base URL for Gemini clients and {url}/v1 for OpenAI clients."


def log_once(request: HttpRequest, oddity: Oddity, path: str) -> None:
    """Log that a request was treated as one for `path`, once per oddity and process. Never logs credentials."""
    if oddity in _logged:
        return
    _logged.add(oddity)
    requested, treated_as = _shown(request.path), _shown(unquote(path.partition("?")[0]))
    logger.info("Treated the path %s as %s: it has %s. %s", requested, treated_as, oddity, base_urls(request))


def _shown(path: str) -> str:
    """Return a decoded path for the log, so that masking also finds encoded secrets."""
    return mask_text(" ".join(path.split()), settings.PLACEHOLDER_TOKEN)[:300]
