"""Token counts, read on the side while an answer passes. Pure: bytes in, numbers out."""

import json
import re
from mmap import mmap
from typing import Any, NamedTuple

from proxy.bodies.decompression import BadPacking, Unpacker
from proxy.bodies.slices import slice_ends


class Tokens(NamedTuple):
    """What an answer cost, in tokens. `thinking` is not part of `output`; `cached` is part of `prompt`."""

    prompt: int = 0
    output: int = 0
    thinking: int = 0
    cached: int = 0


# Pictures, sound and files in a body: base64, whose size says little of its tokens.
_BLOB = re.compile(rb'"(?:data|url)"\s{0,16}:\s{0,16}"[^"\\]{1024}')
_LONGEST_BEGINNING = 1_100  # of what the pattern above finds
_REST_OF_BLOB = re.compile(rb'[^"\\]*+')
_BLOB_TOKENS = 1_000  # a picture has 258 for each tile of it, a minute of sound 1,920
_SMALL = 16_384


def estimate_input_tokens(body: bytes | mmap) -> int:
    """Return about how many input tokens a request has: a token for 4 bytes of its body, and 1,000 for each blob.

    Lets other greenlets run while it looks through a long body.
    """
    size = len(body)
    if size <= _SMALL:
        return size // 4
    blobs = blob_bytes = place = 0
    is_in_blob = False
    for end in slice_ends(0, size):
        while place < end:
            begin = place
            if is_in_blob:
                rest = _REST_OF_BLOB.match(body, place, end)
                place = rest.end() if rest else end
                blob_bytes += place - begin
                is_in_blob = place == end
            elif found := _BLOB.search(body, place, end):
                place = found.end()
                blobs += 1
                blob_bytes += place - found.start()
                is_in_blob = True
            else:
                place = max(place, end - _LONGEST_BEGINNING)
                break
    return (size - blob_bytes) // 4 + _BLOB_TOKENS * blobs


# In a string these quotes would be escaped, so the marker is found in real keys only.
_MARKER = re.compile(rb'"usage(?:Metadata)?"\s*:\s*(?=\{)')
_LONGEST_MARKER = 64
# A usage object has some dozen numbers; what has not ended after this many bytes is something else.
_LONGEST_USAGE = 16_384
_MOST_MARKERS = 32  # looked at in one piece, from its end
_LONGEST_UNPACKED = 4_194_304  # bytes of one piece, which take some ms
_DECODER = json.JSONDecoder()


class TokenMeter:
    """Finds the last usage object in an answer fed to it piece by piece, however it is cut, gzip or not.

    The last one counts, since each is cumulative. Works for one JSON object, a growing array and SSE alike.
    """

    def __init__(self, content_encoding: str = "") -> None:
        encoding = content_encoding.lower()
        self._unpacker = None if encoding in ("", "identity") else Unpacker(encoding)
        self._is_readable = self._unpacker is None or self._unpacker.is_readable
        self._window = b""
        self._is_waiting = False  # for the end of a usage object
        self.tokens = Tokens()

    def feed(self, piece: bytes) -> None:
        """Look at the next piece of the answer's body as it came over the wire."""
        if not self._is_readable:
            return
        if self._unpacker is None:
            self._look(piece)
            return
        self._unpacker.feed(piece)
        size = 0
        try:
            for step in self._unpacker.steps():
                self._look(step)
                if (size := size + len(step)) > _LONGEST_UNPACKED:
                    self._is_readable = False
                    return
        except BadPacking:
            self._is_readable = False

    def _look(self, piece: bytes) -> None:
        window = self._window + piece
        if self._is_waiting and b"}" not in piece and len(window) < _LONGEST_USAGE:
            self._window = window
            return
        markers = list(_MARKER.finditer(window))
        keep_from = max(markers[-1].end() if markers else 0, len(window) - _LONGEST_MARKER)
        self._is_waiting = False
        for marker in markers[: -_MOST_MARKERS - 1 : -1]:
            if self._read(window[marker.end() : marker.end() + _LONGEST_USAGE]):
                break
            if marker is markers[-1] and len(window) - marker.start() < _LONGEST_USAGE:
                keep_from = marker.start()  # its end is still to come
                self._is_waiting = True
        self._window = window[keep_from:]

    def _read(self, content: bytes) -> bool:
        try:
            usage, _ = _DECODER.raw_decode(content.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return False
        self.tokens = _tokens_in(usage)
        return True


def _tokens_in(usage: dict[str, Any]) -> Tokens:
    def number(source: Any, name: str) -> int:
        value = source.get(name) if isinstance(source, dict) else None
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    if "prompt_tokens" in usage:  # OpenAI's endpoint: thinking hides in the total
        prompt, output = number(usage, "prompt_tokens"), number(usage, "completion_tokens")
        thinking = max(0, number(usage, "total_tokens") - prompt - output)
        return Tokens(prompt, output, thinking, number(usage.get("prompt_tokens_details"), "cached_tokens"))
    if "total_input_tokens" in usage:  # Interactions API
        return Tokens(
            number(usage, "total_input_tokens"),
            number(usage, "total_output_tokens"),
            number(usage, "total_thought_tokens"),
            number(usage, "total_cached_tokens"),
        )
    return Tokens(
        number(usage, "promptTokenCount") + number(usage, "toolUsePromptTokenCount"),
        number(usage, "candidatesTokenCount"),
        number(usage, "thoughtsTokenCount"),
        number(usage, "cachedContentTokenCount"),
    )
