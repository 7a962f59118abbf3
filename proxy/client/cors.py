"""Cross-origin requests (CORS) of browsers to the relay, from the web pages in CORS_ORIGINS. Never to our own pages."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers

_METHODS = "GET, POST, PUT, PATCH, DELETE"
# Response headers that scripts can read, apart from those that the standard allows anyway.
_EXPOSED = (
    "X-Goog-Upload-URL, X-Goog-Upload-Control-URL, X-Goog-Upload-Status, X-Goog-Upload-Chunk-Granularity, "
    "X-Goog-Upload-Size-Received, X-Request-Id, X-Keys-Tried, X-Waited-Seconds, X-Key, Retry-After, Content-Disposition"
)
_PREFLIGHT_SECONDS = 7200  # the longest time that Chrome remembers it


def is_allowed(origin: str) -> bool:
    """Tell whether a web page of this origin may send requests."""
    return bool(origin) and ("*" in settings.CORS_ORIGINS or origin.lower() in settings.CORS_ORIGINS)


def preflight_response(request: HttpRequest) -> HttpResponse | None:
    """Return the answer to the question whether a page may send a request; None if this is none, or it may not.

    A browser sends no token with the question.
    """
    origin = request.META.get("HTTP_ORIGIN", "")
    is_preflight = request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META
    if not is_preflight or not is_allowed(origin):
        return None
    response = HttpResponse(status=204)
    del response.headers["Content-Type"]
    response.headers["Access-Control-Allow-Methods"] = _METHODS
    if asked := request.META.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"):
        response.headers["Access-Control-Allow-Headers"] = asked
    response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
    patch_vary_headers(response, ["Access-Control-Request-Headers"])
    let_page_read(response, origin)
    return response


def let_page_read(response: HttpResponseBase, origin: str) -> None:
    """Let the page that sent the request read the response, if it may."""
    if not settings.CORS_ORIGINS:
        return
    patch_vary_headers(response, ["Origin"])
    if is_allowed(origin):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
