"""Decompresses gzip and deflate bodies in steps, with a limit on the output. Pure."""

import zlib
from collections.abc import Iterator

# A step takes about a millisecond. Callers let other greenlets run between two steps.
STEP = 262_144  # bytes
# A body that decompresses to more than this and to many times its own size is an attack.
_MOST = 134_217_728  # bytes
_MOST_TIMES = 100
_MOST_MEMBERS = 1_000
_READABLE = {"gzip", "x-gzip", "deflate"}
_GZIP = b"\x1f\x8b"


class CorruptBody(ValueError):
    """The body is corrupt, or decompresses to far more than any real body does."""


class Decompressor:
    """Decompresses a body piece by piece: call `feed`, then `steps`.

    Reads gzip with any number of members, ignoring anything after the last one, and deflate with or without the zlib
    header.
    """

    def __init__(self, content_encoding: str) -> None:
        coding = content_encoding.strip().lower()
        # The encoding is one that it can decompress.
        self.is_readable = coding in _READABLE
        self._is_deflate = coding == "deflate"
        self._rest = b""
        self._fed = self._given = self._members = 0
        self._member: zlib._Decompress | None = None
        self._may_have_more = False  # output for the input it has taken
        self._is_over = False

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the compressed body."""
        self._fed += len(piece)
        if not self._is_over:
            self._rest += piece

    def steps(self) -> Iterator[bytes]:
        """Yield the decompressed bytes of the pieces so far, at most STEP at a time. A step may be empty.

        After an early stop, the next call continues. Raises CorruptBody.
        """
        while (member := self._member or self._next_member()) and (self._rest or self._may_have_more):
            yield self._step(member)

    def _next_member(self) -> "zlib._Decompress | None":
        """Return the decompressor of the next member; None when its first bytes are missing or there is none."""
        if self._members:
            self._rest = self._rest.lstrip(b"\0")  # some programs pad to whole blocks
        if len(self._rest) < len(_GZIP):
            return None
        if self._members and not self._rest.startswith(_GZIP):
            self._rest, self._is_over = b"", True
            return None
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise CorruptBody("it has too many gzip members")
        is_bare = self._is_deflate and not self._rest.startswith(_GZIP) and not _has_zlib_head(self._rest)
        self._member = zlib.decompressobj(wbits=-15 if is_bare else 47)
        return self._member

    def _step(self, member: "zlib._Decompress") -> bytes:
        try:
            clear = member.decompress(self._rest, STEP)
        except zlib.error as exc:
            raise CorruptBody("it cannot be decompressed") from exc
        self._may_have_more = len(clear) == STEP
        self._rest = member.unconsumed_tail
        if member.eof:
            self._rest, self._may_have_more, self._member = member.unused_data, False, None
        self._given += len(clear)
        if self._given > max(_MOST, _MOST_TIMES * self._fed):
            raise CorruptBody("it decompresses to too many bytes")
        return clear


def _has_zlib_head(content: bytes) -> bool:
    return content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
