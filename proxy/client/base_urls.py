"""Which base URL a client should have, said to those whose paths tell that it has another."""

import logging
from urllib.parse import unquote

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.urls import get_script_prefix

from proxy.gemini.paths import Oddity
from proxy.security.masking import mask_text

logger = logging.getLogger(__name__)

_told: set[Oddity] = set()


def base_urls(request: HttpRequest) -> str:
    """Return a sentence that names the base URLs of this key manager, by the name the client calls it."""
    try:
        url = request.build_absolute_uri(get_script_prefix()).rstrip("/")
    except DisallowedHost:
        return "Use the address of this key manager as base URL for Gemini clients, with /v1 added for OpenAI clients."
    return f"Use {url} as base URL for Gemini clients and {url}/v1 for OpenAI clients."


def tell_once(request: HttpRequest, oddity: Oddity, path: str) -> None:
    """Log, once in this process for each oddity, that a request was taken for one to `path`; without credentials."""
    if oddity in _told:
        return
    _told.add(oddity)
    asked, taken_for = _shown(request.path), _shown(unquote(path.partition("?")[0]))
    logger.info("Took the path %s for %s: it has %s. %s", asked, taken_for, oddity, base_urls(request))


def _shown(path: str) -> str:
    """Return a decoded path for the log: nothing encoded escapes the mask then."""
    return mask_text(" ".join(path.split()), settings.PLACEHOLDER_TOKEN)[:300]
