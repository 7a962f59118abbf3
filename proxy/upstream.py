"""One HTTP exchange with the Gemini API, and which headers travel. No Django.

urllib3, the engine under requests, is used as it is: raw bytes at the time they come, a thread-safe pool of
connections, no cookies, no redirects followed.
"""

import errno
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import SKIP_HEADER, Timeout

from proxy.gemini import CREDENTIAL_HEADERS, Headers, Target, credential_for
from proxy.masking import mask_bytes

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
    "client-ip",
    "forwarded",
    "openai-organization",
    "openai-project",
    "origin",
    "referer",
    "traceparent",
    "tracestate",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-correlation-id",
    "x-gemini-api-privileged-user-id",
    "x-goog-user-project",
    "x-real-ip",
    "x-request-id",
}
_ABOUT_THE_CLIENT_PREFIXES = ("cf-", "fly-", "x-amzn-", "x-cloud-trace", "x-forwarded-", "x-original-", "x-stainless-")
# Written anew for each exchange. Of the encodings only gzip: we count tokens on the side.
_WRITTEN_HERE = {"accept-encoding", "content-length", "expect", "host"}
_NOT_SENT_ON = frozenset(_HOP_BY_HOP | _ABOUT_THE_CLIENT | _WRITTEN_HERE | CREDENTIAL_HEADERS)
# Alt-Svc would lead the client past us; the server in front writes Date and Server itself.
_NOT_HANDED_BACK = frozenset(_HOP_BY_HOP | {"alt-svc", "date", "server", "set-cookie"})

_PIECE = 65_536
_ESTABLISHED = b"\x01"  # the first byte of Linux's tcp_info
_LONGEST_ERROR = 1_048_576


class UpstreamUnreachable(Exception):
    """No connection came about: nothing was sent, so trying again is safe."""


class AnswerLost(Exception):
    """The request was sent and no answer came: it may have been paid for, so it is not repeated."""

    def __init__(self, message: str, *, is_timeout: bool) -> None:
        super().__init__(message)
        self.is_timeout = is_timeout


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asks, free of any framework. `body` is read from its beginning for each try; size in bytes."""

    method: str
    target: Target
    headers: Headers
    body: "bytes | IO[bytes] | None"
    size: int
    model_name: str


class UpstreamAnswer:
    """An answer whose body has not been read yet: iterate over it, `read_error` it, or `close` it.

    Bytes are as on the wire, except that the key's own secret is overwritten wherever it shows up.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, secret: str) -> None:
        self.status = response.status
        self._response = response
        self._secret = secret.encode()
        self._held = b""
        self.headers: Headers = [
            (name, value.replace(secret, "…")) if secret in value else (name, value)
            for name, value in response.headers.itermerged()
            if name.lower() not in _NOT_HANDED_BACK
        ]

    @property
    def content_encoding(self) -> str:
        return self._response.headers.get("Content-Encoding", "")

    def read_error(self) -> bytes:
        """Return the whole body in clear (at most 1 MiB of it), decoded and with the secret masked; the end of it.

        Iterating afterwards gives this same body.
        """
        try:
            content = b"".join(self._pieces(_LONGEST_ERROR))
        finally:
            self.close()
        if self.content_encoding and self._secret not in content:
            try:
                decoded = zlib.decompress(content, wbits=47)
            except zlib.error:
                decoded = content
            if self._secret not in decoded:
                self._held = content
                return decoded
            content = decoded
            self.headers = [pair for pair in self.headers if pair[0].lower() != "content-encoding"]
        self._held = mask_bytes(content, self._secret)
        self.headers = [pair for pair in self.headers if pair[0].lower() != "content-length"]
        self.headers.append(("Content-Length", str(len(self._held))))
        return self._held

    def __iter__(self) -> Iterator[bytes]:
        if self._held:
            yield self._held
            return
        held = b""
        for piece in self._pieces():
            piece = held + piece
            if self._secret[:4] in piece[-len(self._secret) :] or self._secret in piece:
                piece = mask_bytes(piece, self._secret)
                held = piece[len(piece) - self._overlap(piece) :]
                piece = piece[: len(piece) - len(held)]
            else:
                held = b""
            if piece:
                yield piece
        if held:
            yield held

    def _overlap(self, piece: bytes) -> int:
        """Return how many bytes at the end of `piece` may be the beginning of the secret."""
        longest = min(len(self._secret) - 1, len(piece))
        return next((n for n in range(longest, 3, -1) if piece.endswith(self._secret[:n])), 0)

    def _pieces(self, at_most: int | None = None) -> Iterator[bytes]:
        read = 0
        try:
            while piece := self._response.read1(_PIECE, decode_content=False):
                yield piece
                read += len(piece)
                if at_most and read >= at_most:
                    return
        except (HTTPError, OSError) as exc:
            # As if the client's own connection broke: servers then cut it without a word of their own.
            raise ConnectionResetError(errno.ECONNRESET, "The upstream broke off its answer.") from exc

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, else cut it, so that Google stops."""
        if not self._response.closed:
            self._response.close()
        self._response.release_conn()


class _HttpConnection(urllib3.connection.HTTPConnection):
    @property
    def is_connected(self) -> bool:
        return _is_open(self.sock) if self.sock else False


class _HttpsConnection(urllib3.connection.HTTPSConnection):
    @property
    def is_connected(self) -> bool:
        return _is_open(self.sock) if self.sock else False


def _is_open(sock: socket.socket) -> bool:
    """Tell whether the other side still holds the connection: its TCP state, in one system call.

    urllib3 polls the socket instead, which under gevent costs as much as reading the whole answer does.
    """
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _ESTABLISHED


class Upstream:
    """The Gemini API at `base_url`. Safe to share between threads."""

    def __init__(self, base_url: str, *, connect_seconds: float, read_seconds: float) -> None:
        self._pool = _manager_for(base_url).connection_from_url(
            base_url,
            {
                "maxsize": 1000,
                "retries": False,
                "timeout": Timeout(connect=connect_seconds, read=read_seconds),
            },
        )
        if hasattr(socket, "TCP_INFO"):
            is_tls = isinstance(self._pool, urllib3.HTTPSConnectionPool)
            self._pool.ConnectionCls = _HttpsConnection if is_tls else _HttpConnection
        self._prefix = urllib3.util.parse_url(base_url).path or ""

    def send(self, call: Call, secret: str) -> UpstreamAnswer:
        """Send `call` with `secret` as its only credential; return once the head of the answer is there.

        Raises UpstreamUnreachable and AnswerLost.
        """
        if not isinstance(call.body, bytes | None):
            call.body.seek(0)
        try:
            response = self._pool.urlopen(
                call.method,
                self._prefix + call.target.path,
                body=call.body,
                headers=_headers_for(call, secret),
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
        except (NewConnectionError, ConnectTimeoutError, SSLError) as exc:
            raise UpstreamUnreachable(type(exc).__name__) from exc
        except ReadTimeoutError as exc:
            raise AnswerLost("The Gemini API did not answer in time.", is_timeout=True) from exc
        except (HTTPError, OSError) as exc:
            raise AnswerLost("The Gemini API closed the connection without an answer.", is_timeout=False) from exc
        return UpstreamAnswer(response, secret)


def _manager_for(base_url: str) -> urllib3.PoolManager:
    """Return a manager that goes through HTTPS_PROXY where that is set, as requests does."""
    parsed = urllib3.util.parse_url(base_url)
    proxy_url = getproxies().get("https")
    if parsed.scheme == "https" and proxy_url and not proxy_bypass(parsed.host or ""):
        return urllib3.ProxyManager(proxy_url)
    return urllib3.PoolManager()


def _headers_for(call: Call, secret: str) -> dict[str, str]:
    """Return the headers that travel: the client's, without what ends here, and exactly one credential."""
    sent: dict[str, str] = {"User-Agent": SKIP_HEADER, "Accept-Encoding": "identity"}
    named_by_connection: set[str] = set()
    for name, value in call.headers:
        lowered = name.lower()
        if lowered == "connection":
            named_by_connection = {token.strip().lower() for token in value.split(",")}
        elif lowered == "accept-encoding" and "gzip" in value:
            sent["Accept-Encoding"] = "gzip"
        elif lowered == "user-agent":
            sent["User-Agent"] = value
        elif lowered not in _NOT_SENT_ON and not lowered.startswith(_ABOUT_THE_CLIENT_PREFIXES):
            sent[name] = value
    for name in list(sent):
        if name.lower() in named_by_connection:
            del sent[name]
    if call.body is not None:
        sent["Content-Length"] = str(call.size)
    name, value = credential_for(secret, is_openai=call.target.is_openai)
    sent[name] = value
    return sent
