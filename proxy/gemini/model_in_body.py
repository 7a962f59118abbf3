"""The model that a JSON request body names, found without parsing the whole body. Pure functions."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from mmap import mmap

from proxy.bodies.slices import slice_ends

# What matters for depth in JSON: strings, whose second group is empty when they do not end, and runs of brackets. All
# between two of them is one match, at the speed of C; possessive, and up to the end, so that nothing is tried twice.
_JSON_TOKEN = re.compile(rb'[^"{}\[\]]*+(?:"((?:[^"\\]++|\\.)*+)("?)|([{\[]++)|([}\]]++)|\Z)', re.DOTALL)
_STRING, _OPENING = 2, 3  # the last group of each
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_SPACES = re.compile(rb"[ \t\r\n]*+")
_MODEL_KEYS = (b"model", b"agent")
_LONGEST_NAME = 200
# A body that is all brackets and quotes would take seconds. What a client sends has some 5 tokens a message.
_MOST_TOKENS = 4_000_000


class BadModelName(ValueError):
    """The model that a body names cannot be one; the message is for the client."""


def model_in_json(body: bytes | mmap) -> str:
    """Return the top-level "model" (or "agent") of a JSON object, without its "models/" prefix; "" if none.

    body: bytes or an mmap of them. Stops where it finds the name, so a body of 100 MB that begins with it is cheap, and
    gives up after millions of tokens. Lets other greenlets run meanwhile. Raises BadModelName.
    """
    start = _after_spaces(body, 3 if body[:3] == b"\xef\xbb\xbf" else 0)
    if body[start : start + 1] != b"{":
        return ""
    depth = 0
    for token in islice(_json_tokens(body, start), _MOST_TOKENS):
        if token.lastindex == _STRING:
            if depth == 1 and token[1] in _MODEL_KEYS and (name := _model_at(body, token.end())):
                return name
        elif token.lastindex == _OPENING:
            depth += len(token[3])
        else:
            depth -= len(token[4])
            if depth <= 0:
                break
    return ""


def _json_tokens(body: bytes | mmap, place: int) -> Iterator[re.Match[bytes]]:
    """Yield each run of brackets and each string, without those that are longer than a slice."""
    is_in_string = False
    for end in slice_ends(place, len(body)):
        if is_in_string:
            if (rest := _REST_OF_STRING.match(body, place, end)) is None or not rest[1]:
                place = rest.end() if rest else place
                continue
            place = rest.end()
        begin, place, is_in_string = place, end, False
        for token in _JSON_TOKEN.finditer(body, begin, end):
            if token.lastindex == _STRING and not token[2]:
                # It goes on in the next slice: look at it again from its beginning there, unless it is long.
                is_in_string = token.start(1) == begin + 1
                place = token.end() if is_in_string else token.start(1) - 1
                break
            if token.lastindex:
                yield token


def _model_at(body: bytes | mmap, after_key: int) -> str:
    """Return the name that follows a key which ends at `after_key`; "" for null, an empty name, and none at all."""
    colon = _after_spaces(body, after_key)
    if body[colon : colon + 1] != b":":
        return ""
    begin = _after_spaces(body, colon + 1)
    if begin >= len(body) or body[begin : begin + 4] == b"null":
        return ""
    if body[begin : begin + 1] != b'"':
        raise BadModelName("The model in the body is not a string.")
    most = begin + 12 * (_LONGEST_NAME + len("models/"))  # a character may be written as two escapes of 6 bytes
    found = _JSON_TOKEN.match(body, begin, most)
    is_whole = bool(found and found[2])
    if not is_whole and most >= len(body):
        return ""
    try:
        name = str(json.loads(found[0].decode())) if found and is_whole else "\0"
    except ValueError:
        name = "\0"
    name = name.removeprefix("models/")
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise BadModelName(f"The model in the body is not a name of at most {_LONGEST_NAME} printable characters.")
    return name


def _after_spaces(body: bytes | mmap, place: int) -> int:
    for end in slice_ends(place, len(body)):
        if (spaces := _SPACES.match(body, place, end)) and spaces.end() < end:
            return spaces.end()
        place = end
    return place
