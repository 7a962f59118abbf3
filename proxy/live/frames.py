"""WebSocket frames (RFC 6455) as far as a relay needs them. Pure."""

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

TEXT, BINARY, CLOSE = 1, 2, 8
GOING_AWAY, PROTOCOL_ERROR, TOO_LARGE, INTERNAL_ERROR, TRY_AGAIN_LATER = 1001, 1002, 1009, 1011, 1013
_CONTINUATION = 0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LONGEST_REASON = 123


class TooLarge(ValueError):
    """A frame is larger than is read."""


class Frame(NamedTuple):
    """A frame, and its bytes as they arrived."""

    opcode: int
    # The last one of its message.
    is_last: bool
    # Unmasked.
    payload: bytes
    raw: bytes

    @property
    def is_data(self) -> bool:
        return self.opcode in (_CONTINUATION, TEXT, BINARY)

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 if it has none."""
        return int.from_bytes(self.payload[:2]) if len(self.payload) > 1 else 1005

    @property
    def close_reason(self) -> str:
        return self.payload[2:].decode("utf-8", "replace")


class FrameReader:
    """Splits a stream of bytes into frames. most: bytes of the largest frame."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()

    def feed(self, received: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now. Raises TooLarge."""
        self._buffer += received
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        is_masked, length, begin = buffer[1] & 0x80, buffer[1] & 0x7F, 2
        if length > 125:
            begin = 4 if length == 126 else 10
            if len(buffer) < begin:
                return None
            length = int.from_bytes(buffer[2:begin])
        if length > self._most:
            raise TooLarge
        mask = bytes(buffer[begin : begin + 4]) if is_masked else b""
        begin += 4 if is_masked else 0
        end = begin + length
        if len(buffer) < end:
            return None
        raw = bytes(buffer[:end])
        payload = _masked(raw[begin:], mask) if is_masked else raw[begin:]
        del buffer[:end]
        return Frame(raw[0] & 0x0F, bool(raw[0] & 0x80), payload, raw)


def close_frame(code: int, reason: str = "", mask: bytes = b"") -> bytes:
    """Return a close frame. The reason is cut off after 123 bytes. mask: 4 random bytes in frames of a client."""
    words = reason.encode()[:_LONGEST_REASON].decode("utf-8", "ignore").encode()
    payload = struct.pack("!H", code) + words
    if not mask:
        return bytes([0x80 | CLOSE, len(payload)]) + payload
    return bytes([0x80 | CLOSE, 0x80 | len(payload)]) + mask + _masked(payload, mask)


def accept_for(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)
