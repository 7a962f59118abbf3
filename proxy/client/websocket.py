"""The client's side of the opening handshake of a WebSocket (RFC 6455, 4.2)."""

import base64
import binascii

from django.http import HttpRequest

from proxy.client.errors import RequestRefused
from proxy.gemini.target import Target

_LIVE = "/ws/google.ai.generativelanguage."


def wants_websocket(request: HttpRequest) -> bool:
    """Tell whether a client asks for a WebSocket."""
    return bool(request.META.get("HTTP_UPGRADE", "").lower() == "websocket")


def key_of(request: HttpRequest, target: Target) -> str:
    """Return the client's Sec-WebSocket-Key. Raises RequestRefused when no WebSocket is possible."""
    if not target.path.startswith(_LIVE):
        raise RequestRefused(
            404, "NOT_FOUND", f"The Live API is at {_LIVE}v1beta.GenerativeService.BidiGenerateContent."
        )
    if "gunicorn.socket" not in request.META:
        raise RequestRefused(501, "UNIMPLEMENTED", "The Live API needs `manage.py serve` (or `make run`).")
    key = str(request.META.get("HTTP_SEC_WEBSOCKET_KEY", ""))
    is_upgrade = "upgrade" in request.META.get("HTTP_CONNECTION", "").lower()
    if request.method != "GET" or not is_upgrade or request.META.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise RequestRefused(
            400, "INVALID_ARGUMENT", "A WebSocket begins with GET, Connection: Upgrade and version 13."
        )
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise RequestRefused(400, "INVALID_ARGUMENT", "Sec-WebSocket-Key must be 16 bytes in Base64.")
    return key
