"""A fast path from a client's bytes to the relay and back, past gunicorn's parser and Django's handler.

These two take two fifths of a request's time. A request to the relay in its usual form takes the fast path. Everything
else takes the ordinary one: our pages, large and chunked bodies, upgrades, and whatever HTTP allows but clients rarely
send. `relay_view` answers on both paths, and the bytes are the same.
"""

import logging
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from proxy.client.connections import BodySocket
from proxy.middleware import is_own_path
from proxy.views import relay_view

logger = logging.getLogger(__name__)

_LONGEST_HEAD = 8190  # gunicorn's limit for a line
_MOST_HEADERS = 100  # gunicorn's limit
_LONGEST_BODY = 1_048_576
_PIECE = 65_536
# No fragment, no // at the start, no underscore in names, no control characters: gunicorn has rules for these.
_HEAD = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE) (/(?!/)[!\"$-~]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,7}", re.ASCII)
_UNUSUAL = {
    "HTTP_EXPECT",
    "HTTP_PROXY",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTOCOL",
    "HTTP_X_FORWARDED_SSL",
}


class RelayRequest(HttpRequest):
    """A request to the relay, without the forms, cookies and files of Django's own class."""

    def __init__(self, meta: dict[str, Any], path: str) -> None:
        self.META = meta
        self.method = meta["REQUEST_METHOD"]
        self.path = self.path_info = path


class RequestBody:
    """The body of a request, as `wsgi.input`: what has arrived with its head, then what is still to come."""

    def __init__(self, arrived: bytes, length: int, sock: socket.socket, silence_seconds: float) -> None:
        self._arrived = arrived[:length]
        self._sock = BodySocket(sock, silence_seconds) if len(arrived) < length else None
        # How many bytes have not been read.
        self.left = length
        # What has arrived after the body.
        self.next_request = arrived[length:]

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end. Raises TimeoutError if the client is too slow, OSError."""
        size = min(size, self.left)
        pieces, self._arrived = [self._arrived[:size]], self._arrived[size:]
        missing = size - len(pieces[0])
        while missing and self._sock and (piece := self._sock.recv(min(missing, _PIECE))):
            pieces.append(piece)
            missing -= len(piece)
        self.left -= size - missing
        return b"".join(pieces)

    def skip(self) -> bool:
        """Read what the view has not read, and tell whether the next request can follow."""
        while self.left and self.read(_PIECE):
            pass
        return not self.left


def serve(
    # The first bytes on the connection.
    received: bytes,
    sock: socket.socket,
    # The client's, "" for a Unix socket.
    address: str,
    *,
    # Waits for the next request; b"" at the end of the connection.
    receive_next: Callable[[], bytes],
    # How long the client can be silent within a body.
    silence_seconds: float,
    is_stopping: Callable[[], bool],
) -> bytes:
    """Answer requests on a connection up to the first one that takes the ordinary path. Return what has arrived of it.

    Returns b"" at the end of the connection.
    """
    while received:
        if (request := read_request(received, sock, address, silence_seconds)) is None:
            return received
        body: RequestBody = request.META["wsgi.input"]
        try:
            with closing(relay_view(request)) as response:
                is_last = is_stopping() or request.META.get("HTTP_CONNECTION", "").lower() == "close"
                _send(response, sock, is_last=is_last)
            if is_last or not body.skip():
                return b""
        except OSError:  # the client or the upstream has closed its connection, and the rest of the answer is missing
            return b""
        except Exception:
            logger.exception("An answer could not be sent.")
            return b""
        received = body.next_request or receive_next()
    return b""


def read_request(received: bytes, sock: socket.socket, address: str, silence_seconds: float) -> RelayRequest | None:
    """Return the request that begins with `received`; None if it takes the ordinary path."""
    head = _HEAD.match(received)
    if head is None or head.end() > _LONGEST_HEAD:
        return None
    target = head[2].decode("ascii")
    path, _, query = target.partition("?")
    if "%" in path or is_own_path(path):
        return None
    meta: dict[str, Any] = {}
    lines = head[3].decode("latin-1").split("\r\n")
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        meta[_meta_name(name)] = value.strip(" \t")
    is_usual = (
        len(meta) == len(lines) - 1 <= _MOST_HEADERS  # no header is repeated
        and "HTTP_HOST" in meta
        and meta.get("HTTP_CONNECTION", "close").lower() in ("close", "keep-alive")
        and meta.keys().isdisjoint(_UNUSUAL)
    )
    length = meta.get("CONTENT_LENGTH", "0")
    if not is_usual or not _LENGTH.fullmatch(length) or int(length) > _LONGEST_BODY:
        return None
    meta["REQUEST_METHOD"] = head[1].decode("ascii")
    meta["RAW_URI"] = target
    meta["QUERY_STRING"] = query
    meta["REMOTE_ADDR"] = address
    meta["gunicorn.socket"] = sock
    meta["wsgi.input"] = RequestBody(received[head.end() :], int(length), sock, silence_seconds)
    return RelayRequest(meta, path)


@lru_cache(maxsize=1024)
def _meta_name(name: str) -> str:
    """Return the key of a header in `HttpRequest.META`."""
    name = name.upper().replace("-", "_")
    return name if name in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{name}"


def _send(response: HttpResponseBase, sock: socket.socket, *, is_last: bool) -> None:
    """Send a response, its head together with the first piece of its body. Raises OSError."""
    has_body = response.status_code not in (204, 304)
    if response.status_code == 204:
        del response.headers["Content-Length"]  # RFC 9110, 8.6
    is_chunked = has_body and "Content-Length" not in response.headers
    lines = [
        f"HTTP/1.1 {response.status_code} {response.reason_phrase}",
        "Server: gunicorn",
        f"Date: {_http_date(int(time.time()))}",
        f"Connection: {'close' if is_last else 'keep-alive'}",
    ]
    if is_chunked:
        lines.append("Transfer-Encoding: chunked")
    lines += [f"{name}: {value}" for name, value in response.items()]
    unsent = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    for piece in response if has_body else ():
        if piece:
            sock.sendall(unsent + (b"%X\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece))
            unsent = b""
    if is_chunked:
        unsent += b"0\r\n\r\n"
    if unsent:
        sock.sendall(unsent)


@lru_cache(maxsize=1)
def _http_date(now: int) -> str:
    return formatdate(now, usegmt=True)
