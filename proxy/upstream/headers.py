"""Which headers travel, up and down. Pure functions."""

import re

from proxy.gemini.credentials import CREDENTIAL_HEADERS, Headers
from proxy.security.masking import mask_bytes

# RFC 9110, 7.6.1: these end at each hop.
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
# What would tell Google which client stands behind a key, or link one client over several keys.
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
# Written anew for each exchange. Of the encodings only gzip: we count tokens on the side.
_WRITTEN_HERE = {"accept-encoding", "content-length", "expect", "host"}
_NOT_SENT_ON = frozenset(_HOP_BY_HOP | _ABOUT_THE_CLIENT | _WRITTEN_HERE | CREDENTIAL_HEADERS)
# What tells a browser something about the host that it believes to talk to, which is ours.
_ABOUT_THE_HOST = {"alt-svc", "clear-site-data", "service-worker-allowed", "set-cookie", "strict-transport-security"}
# The server in front writes Date and Server itself.
_NOT_HANDED_BACK = frozenset(_HOP_BY_HOP | _ABOUT_THE_HOST | {"date", "server"})
_TAKES_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)


def sent_on(headers: Headers, size: int | None) -> Headers:
    """Return what travels up: the client's headers without what ends here. size: the body's in bytes, if any."""
    ends_here = _NOT_SENT_ON | _named_by_connection(headers)
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


def handed_back(headers: Headers, secret: str) -> Headers:
    """Return what travels down: the answer's headers without what ends here, `secret` masked in them."""
    ends_here = _NOT_HANDED_BACK | _named_by_connection(headers)
    return [
        (name, mask_bytes(value.encode("latin-1"), secret.encode()).decode("latin-1") if secret in value else value)
        for name, value in headers
        if name.lower() not in ends_here
    ]


def _named_by_connection(headers: Headers) -> set[str]:
    """Return the names, in lower case, of headers that end at this hop because `Connection` names them."""
    return {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }
