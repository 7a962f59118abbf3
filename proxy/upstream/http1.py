"""HTTP/1.1 as far as the relay needs it: one exchange at a time on a connection, bodies as raw bytes. No Django.

urllib3 opens the connections (TLS, proxies, timeouts). The exchange is written here, because urllib3 and http.client
took a quarter of a request's time, mostly to parse headers as e-mail. Wherever a mistake could mix up two answers, this
follows RFC 9112 strictly: anything unexpected closes the connection.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO

from proxy.gemini.credentials import Headers

_PIECE = 65_536
_LONGEST_HEAD = 262_144
_LONGEST_LINE = 8_192
_LONGEST_TRAILERS = 16_384
_MOST_HEADS = 20  # 1xx answers and the final one
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # tabs are allowed
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\Z")


class BrokenAnswer(OSError):
    """The connection ended too early, or the answer is not valid HTTP/1.1."""


class BodyStream:
    """A body that is passed on while the client sends it, and so can be sent only once."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.has_begun = False

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end."""
        self.has_begun = True
        return self._read(size)


class Http1Connection:
    """A connection for one exchange at a time: `send`, `read_head`, then `pieces` to the end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""
        self._at = 0  # the part of the buffer before this has been consumed
        self._length: int | None = 0
        self._is_chunked = False
        self.is_reusable = False

    def send(self, head: bytes, body: "bytes | IO[bytes] | BodyStream | None") -> None:
        """Send a request. A body in a file is sent from its start.

        If the upstream stops reading, it may have answered already; `read_head` will tell.
        """
        self.is_reusable = False
        with suppress(BrokenPipeError, ConnectionResetError):
            self._send(head, body)

    def _send(self, head: bytes, body: "bytes | IO[bytes] | BodyStream | None") -> None:
        if isinstance(body, bytes) and len(body) < _PIECE:
            self.sock.sendall(head + body)
            return
        self.sock.sendall(head)
        if isinstance(body, bytes):
            self.sock.sendall(body)
        elif body is not None:
            if not isinstance(body, BodyStream):
                body.seek(0)
            while piece := body.read(_PIECE):
                self.sock.sendall(piece)

    def read_head(self, *, is_head_request: bool = False, is_upgrade: bool = False) -> tuple[int, Headers]:
        """Return the status and headers of the answer. Raises BrokenAnswer, OSError."""
        for _ in range(_MOST_HEADS):  # 100 Continue and 103 Early Hints are not the answer
            status, minor, headers = self._read_one_head()
            if status >= 200 or (is_upgrade and status == 101):
                break
        else:
            raise BrokenAnswer("There are too many 1xx answers.")
        lengths = {value for name, value in headers if name.lower() == "content-length"}
        codings = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
        connection = ",".join(value.lower() for name, value in headers if name.lower() == "connection")
        if len(lengths) > 1 or not all(length.isdigit() and length.isascii() for length in lengths):
            raise BrokenAnswer("The answer has an invalid Content-Length.")
        if codings and codings != ["chunked"]:
            raise BrokenAnswer("The answer has a transfer coding other than chunked.")
        self._is_chunked, self._length = bool(codings), None
        if is_head_request or status in (204, 304):
            self._is_chunked, self._length = False, 0
        elif lengths and not codings:
            self._length = int(next(iter(lengths)))
        has_end = self._is_chunked or self._length is not None
        self._may_stay = has_end and minor == b"1" and "close" not in connection and not (codings and lengths)
        pairs = [pair for pair in headers if pair[0].lower() == "content-length"]
        for pair in pairs if codings else pairs[1:]:  # passed on at most once
            headers.remove(pair)
        return status, headers

    def _read_one_head(self) -> tuple[int, bytes, Headers]:
        while (end := self._buffer.find(b"\r\n\r\n", self._at)) < 0:
            if self._ready > _LONGEST_HEAD:
                raise BrokenAnswer("The head of the answer is too long.")
            self._receive()
        lines = self._take(end + 4 - self._at)[:-4].split(b"\r\n")
        if not (found := _STATUS_LINE.match(lines[0])):
            raise BrokenAnswer("The answer is not HTTP/1.1.")
        headers: Headers = []
        for line in lines[1:]:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or not _HEADER_NAME.match(name) or _CONTROL_CHARACTER.search(value):
                raise BrokenAnswer("The answer has a malformed header.")
            headers.append((name, value.strip(" \t")))
        return int(found[2]), found[1], headers

    def take_rest(self) -> bytes:
        """Return what has arrived and not been consumed."""
        return self._take(self._ready)

    @property
    def has_body(self) -> bool:
        return self._is_chunked or self._length != 0

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, without chunk framing. Bytes that arrive together are one piece."""
        if self._is_chunked:
            yield from self._chunks()
        elif self._length is None:
            try:
                while True:
                    if self._ready:
                        yield self._take(self._ready)
                    self._receive()
            except BrokenAnswer:
                return  # this answer ends when the connection closes
        else:
            left = self._length
            while left:
                if not self._ready:
                    self._receive()
                piece = self._take(left)
                left -= len(piece)
                yield piece
        self.is_reusable = self._may_stay and not self._ready

    def _chunks(self) -> Iterator[bytes]:
        left, expects, trailers = 0, "size", 0
        while expects != "nothing":
            ready = []
            while expects != "nothing":  # collect everything that has arrived
                if expects == "data":
                    ready.append(self._take(left))
                    left -= len(ready[-1])
                    expects = "data" if left else "end of chunk"
                    if left:
                        break
                elif (line := self._line()) is None:
                    break
                elif expects == "size":
                    if not (found := _CHUNK_SIZE.match(line)):
                        raise BrokenAnswer("The answer has a malformed chunk.")
                    left = int(found[1], 16)
                    expects = "data" if left else "trailers"
                elif expects == "trailers":
                    trailers = _checked(trailers + len(line))
                    expects = "trailers" if line else "nothing"
                elif line:
                    raise BrokenAnswer("A chunk of the answer has a wrong length.")
                else:
                    expects = "size"
            if content := b"".join(ready):
                yield content
            if expects != "nothing":
                self._receive()

    def _line(self) -> bytes | None:
        """Consume a line of the buffer; return None if it is incomplete."""
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            if self._ready > _LONGEST_LINE:
                raise BrokenAnswer("The answer has a malformed chunk.")
            return None
        line, self._at = self._buffer[self._at : end], end + 2
        return line

    def _take(self, at_most: int) -> bytes:
        piece = self._buffer[self._at : self._at + at_most]
        self._at += len(piece)
        return piece

    @property
    def _ready(self) -> int:
        """How many bytes have arrived and not been consumed."""
        return len(self._buffer) - self._at

    def _receive(self) -> None:
        received = self.sock.recv(_PIECE)
        if not received:
            raise BrokenAnswer("The connection was closed in the middle of an answer.")
        if len(received) == _PIECE:  # more has arrived already; let other greenlets run first
            time.sleep(0)
        self._buffer = self._buffer[self._at :] + received
        self._at = 0

    def close(self) -> None:
        self.sock.close()


def _checked(trailers: int) -> int:
    """Return the size of the trailers so far, in bytes."""
    if trailers > _LONGEST_TRAILERS:
        raise BrokenAnswer("The trailers of the answer are too long.")
    return trailers
