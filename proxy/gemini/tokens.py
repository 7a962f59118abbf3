"""Token counts, read from an answer while it is streamed. Pure."""

import json
import re
from mmap import mmap
from typing import Any, NamedTuple

from proxy.bodies.decompression import CorruptBody, Decompressor
from proxy.bodies.slices import slice_ends


class Tokens(NamedTuple):
    """The tokens of a request and its answer."""

    # Input tokens, including cached ones.
    prompt: int = 0
    # Without thinking tokens.
    output: int = 0
    thinking: int = 0
    cached: int = 0


# Images, audio and files in base64, whose size says little about their tokens.
_BLOB = re.compile(rb'"(?:data|url)"\s{0,16}:\s{0,16}"[^"\\]{1024}')
_LONGEST_BEGINNING = 1_100  # of a match of _BLOB
_REST_OF_BLOB = re.compile(rb'[^"\\]*+')
_BLOB_TOKENS = 1_000  # an image has 258 per tile, a minute of audio 1,920
_SMALL = 16_384


def estimate_input_tokens(body: bytes | mmap) -> int:
    """Return an estimate of a request's input tokens: one for 4 bytes of the body, and 1,000 for each blob.

    Lets other greenlets run while it searches a long body.
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


# Inside a string the quotes would be escaped, so this matches only real keys.
_MARKER = re.compile(rb'"usage(?:Metadata)?"\s*:\s*(?=\{)')
_LONGEST_MARKER = 64
# A usage object has about a dozen numbers. Anything longer than this is something else.
_LONGEST_USAGE = 16_384
_MOST_MARKERS = 32  # tried per piece, from its end
_LONGEST_DECOMPRESSED = 4_194_304  # bytes per piece, which take a few ms
_DECODER = json.JSONDecoder()


class TokenMeter:
    """Finds the last usage object in an answer, which is fed to it in pieces of any size, compressed or not.

    Usage objects are cumulative, so the last one counts. Works for a JSON object, a JSON array and SSE.
    """

    def __init__(self, content_encoding: str = "") -> None:
        encoding = content_encoding.lower()
        self._decompressor = None if encoding in ("", "identity") else Decompressor(encoding)
        self._is_readable = self._decompressor is None or self._decompressor.is_readable
        self._window = b""
        self._is_waiting = False  # the window has an incomplete usage object
        self.tokens = Tokens()

    def feed(self, piece: bytes) -> None:
        """Read the next piece of the answer's body, as it arrived."""
        if not self._is_readable:
            return
        if self._decompressor is None:
            self._search(piece)
            return
        self._decompressor.feed(piece)
        size = 0
        try:
            for step in self._decompressor.steps():
                self._search(step)
                if (size := size + len(step)) > _LONGEST_DECOMPRESSED:
                    self._is_readable = False
                    return
        except CorruptBody:
            self._is_readable = False

    def _search(self, piece: bytes) -> None:
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
                keep_from = marker.start()  # its end has yet to arrive
                self._is_waiting = True
        self._window = window[keep_from:]

    def _read(self, content: bytes) -> bool:
        try:
            usage, _ = _DECODER.raw_decode(content.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return False
        self.tokens = _tokens_in(usage)
        return True


NO_TOKENS = Tokens()


def tokens_in_message(message: bytes) -> Tokens:
    """Return the tokens in a message of the Live API, which counts each turn separately."""
    try:
        usage = json.loads(message).get("usageMetadata")
    except (ValueError, AttributeError, RecursionError):
        return NO_TOKENS
    return _tokens_in(usage) if isinstance(usage, dict) else NO_TOKENS


def _tokens_in(usage: dict[str, Any]) -> Tokens:
    def number(source: Any, name: str) -> int:
        value = source.get(name) if isinstance(source, dict) else None
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    if "prompt_tokens" in usage:  # OpenAI's endpoint, where thinking is only part of the total
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
        number(usage, "candidatesTokenCount") or number(usage, "responseTokenCount"),
        number(usage, "thoughtsTokenCount"),
        number(usage, "cachedContentTokenCount"),
    )
