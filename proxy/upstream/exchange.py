"""One exchange with the Gemini API. No Django.

urllib3, the library under requests, opens connections (TLS, proxies). `http1.py` speaks HTTP on them, and `headers.py`
decides which headers are forwarded. Cookies are not kept, and redirects are not followed.
"""

import base64
import errno
import logging
import re
import secrets
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from typing import IO, Any
from urllib.parse import quote

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import Url, parse_url
from urllib3.util.ssl_ import create_urllib3_context

from proxy.bodies.decompression import CorruptBody, Decompressor
from proxy.gemini.credentials import Headers, credential_for
from proxy.gemini.target import Target
from proxy.security.masking import mask_bytes
from proxy.upstream.headers import headers_for_client, headers_for_upstream
from proxy.upstream.http1 import BodyStream, BrokenAnswer, Http1Connection
from proxy.upstream.outbound_proxy import credentials_for, proxy_for
from proxy.upstream.sockets import has_unread, is_open

logger = logging.getLogger(__name__)

_LONGEST_AHEAD = 1_048_576
_LONGEST_AHEAD_SECONDS = 5  # after its head; whatever has arrived by then is used
_MOST_IDLE = 1000
_BODY_HEADERS = {"content-encoding", "content-length"}

_EVENTS = "text/event-stream"
_END_OF_EVENT = re.compile(rb"\n\r?\n")
_BREAKS_LINES = re.compile(r"[\r\n\0]")


class IdleConnections:
    """Connections kept for the next request, the most recently used first. Safe to share between threads."""

    def __init__(self) -> None:
        self._connections: deque[Http1Connection] = deque()
        self._is_closed = False

    def put(self, connection: Http1Connection) -> None:
        """Keep a connection, or close it if there are enough or this is closed."""
        if len(self._connections) >= _MOST_IDLE:
            connection.close()
            return
        self._connections.append(connection)
        if self._is_closed:  # checked after the append, so that a `close` in another thread misses nothing
            self.close()

    def take(self) -> Http1Connection | None:
        """Return the most recently used connection that is still open; None if there is none."""
        while True:
            try:
                connection = self._connections.pop()
            except IndexError:
                return None
            if is_open(connection.sock) and not has_unread(connection.sock):
                return connection
            connection.close()

    def close(self) -> None:
        """Close all connections, and any that are put here later."""
        self._is_closed = True
        with suppress(IndexError):
            while True:
                self._connections.pop().close()


class UpstreamUnreachable(Exception):
    """No connection could be opened. Nothing was sent, so a retry is safe."""


class AnswerLost(Exception):
    """The request was sent, but no answer arrived. It may be billed, so it is not retried."""

    def __init__(self, message: str, *, is_timeout: bool) -> None:
        super().__init__(message)
        self.is_timeout = is_timeout


@dataclass(frozen=True, slots=True)
class Call:
    """A client's request, independent of any framework."""

    method: str
    target: Target
    headers: Headers = field(repr=False)
    # Read from its start for each attempt, unless it is a stream.
    body: "bytes | IO[bytes] | BodyStream | None" = field(repr=False)
    # Of the body, in bytes.
    size: int
    model_name: str
    # An estimate; None when the call spends no quota.
    input_tokens: int | None = None
    # Sent by the client; None if it sent none.
    timeout_seconds: float | None = None
    # Resources of a Google project that it names.
    resources: frozenset[str] = frozenset()
    # A digest of the client that has something created; "" if nothing is created.
    creator: str = ""
    # It has no token, and may only continue an upload that is known.
    has_no_token: bool = False
    # Hashes of the beginnings of the conversation that it continues; see `gemini/conversation.py`.
    beginnings: tuple[int, ...] = ()
    # The address under which the client reaches this service, where an upload that begins continues; "" if none begins.
    base_url: str = ""
    # For the Live API, sent to Google instead of a key; "" if the client has none.
    ephemeral_token: str = field(default="", repr=False)

    @property
    def can_repeat(self) -> bool:
        """Tell whether another attempt is possible."""
        return not isinstance(self.body, BodyStream) or not self.body.has_begun

    def close(self) -> None:
        """Close the body if it is a file. It is not needed once the answer begins."""
        if self.body is not None and not isinstance(self.body, bytes | BodyStream):
            self.body.close()


class UpstreamAnswer:
    """An answer whose body has yet to be read: iterate over it, then close it. Closing it twice is harmless.

    The bytes are those on the wire, except that the key's secret is masked wherever it occurs.
    """

    def __init__(
        self, status: int, headers: Headers, connection: Http1Connection, idle: IdleConnections, secret: str
    ) -> None:
        self.status = status
        self.headers = headers_for_client(headers, secret)
        self.content_encoding = _encoding_in(headers)
        # What `read_ahead` has read: decompressed and masked, at most 1 MiB.
        self.content = b""
        self._connection = connection
        self._idle = idle
        self._secret = secret.encode()
        self._read = b""
        self._rest: Iterator[bytes] = connection.pieces()
        self._decompressor = Decompressor(self.content_encoding)
        self._is_closed = False

    @property
    def content_type(self) -> str:
        """The Content-Type header; "" if there is none."""
        return next((value for name, value in self.headers if name.lower() == "content-type"), "")

    @property
    def _is_readable(self) -> bool:
        return not self.content_encoding or self._decompressor.is_readable or not self._connection.has_body

    def check_readable(self) -> None:
        """Raise BrokenAnswer for an unexpected encoding, in which a secret could not be found."""
        if not self._is_readable:
            raise BrokenAnswer(f"The answer has the encoding {self.content_encoding!r}.")

    def read_ahead(self) -> None:
        """Read the body, or the first event of a stream, into `content`. Iterating later still yields all of it.

        Raises OSError.
        """
        is_stream = _EVENTS in self.content_type.lower()
        if not self._is_readable:
            self.replace_body(b"")
            return
        until = time.monotonic() + _LONGEST_AHEAD_SECONDS
        read, size = [], 0
        for piece in self._rest:
            read.append(piece)
            size += len(piece)
            if size >= _LONGEST_AHEAD or time.monotonic() > until:
                break
            if is_stream and (self.content_encoding or _END_OF_EVENT.search(b"".join(read))):
                break
        self._read = b"".join(read)
        if not self.content_encoding:
            self.content = mask_bytes(self._read, self._secret)
            return
        clear, is_damaged = self._decompressed_beginning()
        self.content = mask_bytes(clear, self._secret)
        if is_damaged or self._secret in clear or self._secret in self._read:
            self.replace_body(self.content)  # a compressed body cannot be masked

    def _decompressed_beginning(self) -> tuple[bytes, bool]:
        """Return what was read, decompressed, at most 1 MiB of it, and whether it is damaged."""
        steps, size = [], 0
        self._decompressor.feed(self._read)
        try:
            for step in self._decompressor.steps():
                steps.append(step)
                size += len(step)
                if size >= _LONGEST_AHEAD:
                    break
                time.sleep(0)
        except CorruptBody:
            return b"".join(steps) or (self._read if _is_text(self._read) else b""), True
        return b"".join(steps), False

    def replace_body(self, content: bytes) -> None:
        """Yield this instead of the body. For an answer that has been read ahead."""
        self._read, self._rest, self.content_encoding = content, iter(()), ""
        self.headers = [pair for pair in self.headers if pair[0].lower() not in _BODY_HEADERS]
        self.headers.append(("Content-Length", str(len(content))))

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        for piece in self._pieces():
            piece = mask_bytes(held + piece, self._secret)
            held = piece[len(piece) - self._overlap(piece) :]
            if piece := piece[: len(piece) - len(held)]:
                yield piece
        if held:
            yield held

    def _overlap(self, piece: bytes) -> int:
        """Return how many bytes at the end of `piece` may be the beginning of the secret."""
        end = piece[1 - len(self._secret) :]
        start = end.find(self._secret[:1])
        while start >= 0 and not self._secret.startswith(end[start:]):
            start = end.find(self._secret[:1], start + 1)
        return len(end) - start if start >= 0 else 0

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self._checked_pieces() if self.content_encoding else chain([self._read], self._rest)
        except OSError as exc:
            # The same error as for a broken client connection, on which servers cut the connection silently.
            logger.warning("The Gemini API cut off an answer: %s", exc)
            raise ConnectionResetError(errno.ECONNRESET, "The upstream cut off its answer.") from exc

    def _checked_pieces(self) -> Iterator[bytes]:
        """Pass on a compressed body, and cut it off before the secret, which cannot be masked there."""
        end = self.content  # the decompressor has read it already
        for number, piece in enumerate(chain([self._read], self._rest)):
            if number:
                self._decompressor.feed(piece)
            try:
                for step_number, step in enumerate(self._decompressor.steps()):
                    end = end[1 - len(self._secret) :] + step
                    if self._secret in end:
                        raise BrokenAnswer("it contains the key")
                    if step_number:
                        time.sleep(0)
            except CorruptBody as exc:
                raise BrokenAnswer(str(exc)) from exc
            yield piece

    def close(self) -> None:
        """Keep the connection if the answer was read to its end; otherwise close it, so that Google stops."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._connection.is_reusable:
            self._idle.put(self._connection)
        else:
            self._connection.close()


class Upstream:
    """The Gemini API at `base_url`. Safe to share between threads."""

    def __init__(self, base_url: str, *, connect_seconds: float, read_seconds: float) -> None:
        self._url = parse_url(base_url)
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._tls = _tls_context() if self._url.scheme == "https" else None
        self._idle = IdleConnections()

    @cached_property
    def _proxy(self) -> Url | None:
        return proxy_for(self._url)

    def close(self) -> None:
        """Close the idle connections."""
        self._idle.close()

    def send(self, call: Call, secret: str) -> UpstreamAnswer:
        """Send `call` with `secret` as its only credential, and return once the head, or a whole error, has arrived.

        Raises UpstreamUnreachable, AnswerLost.
        """
        head = self._head_of(call, secret)
        connection = self._idle.take() or self._connect()
        try:
            connection.send(head, call.body)
            status, headers = connection.read_head(is_head_request=call.method == "HEAD")
            answer = UpstreamAnswer(status, headers, connection, self._idle, secret)
            if status >= 400:
                answer.read_ahead()
            else:
                answer.check_readable()
            return answer
        except TimeoutError as exc:
            connection.close()
            raise AnswerLost("The Gemini API did not answer in time.", is_timeout=True) from exc
        except OSError as exc:
            connection.close()
            raise AnswerLost("The Gemini API closed the connection without an answer.", is_timeout=False) from exc
        except BaseException:
            connection.close()
            raise

    def open_websocket(self, call: Call, secret: str) -> tuple[socket.socket, bytes] | UpstreamAnswer:
        """Return a WebSocket to the path of `call`, and what has arrived on it; otherwise the error that refuses it.

        Raises UpstreamUnreachable.
        """
        connection = self._connect()
        path = f"{self._url.path or ''}{call.target.path}"
        if call.ephemeral_token:
            path += f"{'&' if '?' in path else '?'}access_token={quote(call.ephemeral_token)}"
        lines = [f"GET {path} HTTP/1.1", f"Host: {self._url.netloc}"]
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        if not call.ephemeral_token:
            lines.append(": ".join(credential_for(secret, is_openai=False)))
        try:
            connection.send(_encoded(lines), None)
            status, headers = connection.read_head(is_upgrade=True)
            if status == 101:
                return connection.sock, connection.take_rest()
            answer = UpstreamAnswer(status, headers, connection, self._idle, secret)
            answer.read_ahead()
            return answer
        except OSError as exc:
            connection.close()
            raise UpstreamUnreachable(f"{type(exc).__name__}: {exc}") from exc
        except BaseException:
            connection.close()
            raise

    def _connect(self) -> Http1Connection:
        host, port = self._url.host or "", self._url.port or (443 if self._tls else 80)
        make: Any = HTTPConnection
        if self._tls:
            make = partial(HTTPSConnection, ssl_context=self._tls)
        if self._proxy:
            opener = make(self._proxy.host, self._proxy.port or 8080, timeout=self._connect_seconds, proxy=self._proxy)
            opener.set_tunnel(host, port, headers=credentials_for(self._proxy))
        else:
            opener = make(host, port, timeout=self._connect_seconds)
        try:
            opener.connect()
        except (HTTPError, OSError) as exc:
            opener.close()
            raise UpstreamUnreachable(f"{type(exc).__name__}: {exc}") from exc
        sock: socket.socket = opener.sock
        sock.settimeout(self._read_seconds)
        return Http1Connection(sock)

    def _head_of(self, call: Call, secret: str) -> bytes:
        lines = [f"{call.method} {self._url.path or ''}{call.target.path} HTTP/1.1", f"Host: {self._url.netloc}"]
        sent = headers_for_upstream(call.headers, None if call.body is None else call.size)
        sent.append(credential_for(secret, is_openai=call.target.is_openai))
        lines += [f"{name}: {value}" for name, value in sent]
        return _encoded(lines)


def _encoded(lines: list[str]) -> bytes:
    """Return the head of a request. Raises ValueError if a line contains another."""
    if _BREAKS_LINES.search("".join(lines)):
        raise ValueError("A header of the request contains a line break.")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _encoding_in(headers: Headers) -> str:
    """Return the Content-Encoding of an answer, "" if its body is not compressed."""
    codings = [value.strip() for name, value in headers if name.lower() == "content-encoding"]
    return ", ".join(coding for coding in codings if coding and coding.lower() != "identity")


def _is_text(content: bytes) -> bool:
    """Tell whether this is plain text, in which a secret can be found, whatever encoding the headers name."""
    try:
        return all(character.isprintable() or character.isspace() for character in content.decode())
    except UnicodeDecodeError:
        return False


def _tls_context() -> ssl.SSLContext:
    """Return a context with the system's certificate authorities, or those of certifi if it has none."""
    context = create_urllib3_context()
    context.load_default_certs()
    if not context.get_ca_certs() and not context.cert_store_stats()["x509_ca"]:
        context.load_verify_locations(certifi.where())
    return context
