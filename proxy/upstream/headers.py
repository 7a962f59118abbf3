"""Decides which headers are forwarded, in both directions. Pure functions."""

import re

from proxy.gemini.credentials import CREDENTIAL_HEADERS, Headers
from proxy.security.masking import mask_bytes

# Hop-by-hop headers (RFC 9110, 7.6.1).
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
# These would tell Google about the client behind a key, or link one client across several keys.
_ABOUT_THE_CLIENT = {
    "baggage",
    "forwarded",
    "openai-organization",
    "openai-project",
    "origin",
    "referer",
    "traceparent",
    "tracestate",
    "via",
    "x-correlation-id",
    "x-gemini-api-privileged-user-id",
    "x-goog-user-project",
    "x-request-id",
}
_ABOUT_THE_CLIENT_SHAPE = re.compile(
    r"(?:b3$|cf-|fastly-|fly-|sentry-|x-(?:amzn|b3|client|cluster|datadog|envoy|forwarded|original|stainless)-"
    r"|x-cloud-trace)|.*client-?ip$|.*-ip$"
)
# Replaced in each exchange. The only encoding we accept is gzip, since we read token counts.
_WRITTEN_HERE = {"accept-encoding", "content-length", "expect", "host"}
_NOT_FORWARDED = frozenset(_HOP_BY_HOP | _ABOUT_THE_CLIENT | _WRITTEN_HERE | CREDENTIAL_HEADERS)
# These tell a browser something about the host that it connects to, which is ours.
_ABOUT_THE_HOST = {"alt-svc", "clear-site-data", "service-worker-allowed", "set-cookie", "strict-transport-security"}
# Our own server adds Date and Server.
_NOT_RETURNED = frozenset(_HOP_BY_HOP | _ABOUT_THE_HOST | {"date", "server"})
_TAKES_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)


def headers_for_upstream(headers: Headers, size: int | None) -> Headers:
    """Return the client's headers that are forwarded. size: of the body in bytes, None without a body."""
    ends_here = _NOT_FORWARDED | _named_by_connection(headers)
    encoding = "identity"
    sent: Headers = []
    for name, value in headers:
        lowered = name.lower()
        if lowered == "accept-encoding" and _TAKES_GZIP.search(value):
            encoding = "gzip"
        elif lowered not in ends_here and not _ABOUT_THE_CLIENT_SHAPE.match(lowered):
            sent.append((name, value))
    sent.append(("Accept-Encoding", encoding))
    if size is not None:
        sent.append(("Content-Length", str(size)))
    return sent


def headers_for_client(headers: Headers, secret: str) -> Headers:
    """Return the answer's headers that are returned to the client, with `secret` masked."""
    ends_here = _NOT_RETURNED | _named_by_connection(headers)
    return [
        (name, mask_bytes(value.encode("latin-1"), secret.encode()).decode("latin-1") if secret in value else value)
        for name, value in headers
        if name.lower() not in ends_here
    ]


def _named_by_connection(headers: Headers) -> set[str]:
    """Return the lower-case names of the headers that `Connection` declares as hop-by-hop."""
    return {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }
