"""Bodies packed with gzip or deflate, unpacked a step at a time and within bounds. Pure."""

import zlib
from collections.abc import Iterator

# A step takes about a millisecond: whoever unpacks lets others work in between.
STEP = 262_144  # bytes
# What unpacks to more than this, and to many times its own size, is made to keep us busy.
_MOST = 134_217_728  # bytes
_MOST_TIMES = 100
_MOST_MEMBERS = 1_000
_READABLE = {"gzip", "x-gzip", "deflate"}
_GZIP = b"\x1f\x8b"


class BadPacking(ValueError):
    """The body is damaged, or unpacks to far more than anybody sends."""


class Unpacker:
    """Unpacks a body that is fed to it piece by piece: `feed`, then `steps`.

    Reads gzip of any number of members, passing over what follows the last one, and deflate with and without the head
    of zlib. is_readable: whether the encoding is one of these.
    """

    def __init__(self, content_encoding: str) -> None:
        coding = content_encoding.strip().lower()
        self.is_readable = coding in _READABLE
        self._is_deflate = coding == "deflate"
        self._rest = b""
        self._fed = self._given = self._members = 0
        self._member: zlib._Decompress | None = None
        self._may_have_more = False  # of what it took
        self._is_over = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the packed body."""
        self._fed += len(piece)
        if not self._is_over:
            self._rest += piece

    def steps(self) -> Iterator[bytes]:
        """Yield what came so far, unpacked, at most STEP bytes at a time; a step may be empty.

        Whoever does not go on gets the rest from the next call. Raises BadPacking.
        """
        while (member := self._member or self._next_member()) and (self._rest or self._may_have_more):
            yield self._step(member)

    def _next_member(self) -> "zlib._Decompress | None":
        """Return what unpacks the next member, or the first; None when its beginning has not come, or there is none."""
        if self._members:
            self._rest = self._rest.lstrip(b"\0")  # some pad to whole blocks
        if len(self._rest) < len(_GZIP):
            return None
        if self._members and not self._rest.startswith(_GZIP):
            self._rest, self._is_over = b"", True
            return None
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise BadPacking("it is packed in too many parts")
        is_bare = self._is_deflate and not self._rest.startswith(_GZIP) and not _has_zlib_head(self._rest)
        self._member = zlib.decompressobj(wbits=-15 if is_bare else 47)
        return self._member

    def _step(self, member: "zlib._Decompress") -> bytes:
        try:
            clear = member.decompress(self._rest, STEP)
        except zlib.error as exc:
            raise BadPacking("it cannot be unpacked") from exc
        self._may_have_more = len(clear) == STEP
        self._rest = member.unconsumed_tail
        if member.eof:
            self._rest, self._may_have_more, self._member = member.unused_data, False, None
        self._given += len(clear)
        if self._given > max(_MOST, _MOST_TIMES * self._fed):
            raise BadPacking("it unpacks to too much")
        return clear


def _has_zlib_head(content: bytes) -> bool:
    return content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
