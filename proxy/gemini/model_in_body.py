"""Finds the model in a JSON request body without parsing all of it. Pure functions."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from mmap import mmap

from proxy.bodies.slices import slice_ends

# A string or a run of brackets, after everything that does not change the depth. The second group is empty when the
# string does not end. Possessive quantifiers prevent backtracking.
_JSON_TOKEN = re.compile(rb'[^"{}\[\]]*+(?:"((?:[^"\\]++|\\.)*+)("?)|([{\[]++)|([}\]]++)|\Z)', re.DOTALL)
_STRING, _OPENING = 2, 3  # the last group of each
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_SPACES = re.compile(rb"[ \t\r\n]*+")
_MODEL_KEYS = (b"model", b"agent")
_LONGEST_NAME = 200
# A body of nothing but brackets and quotes would take seconds. Real requests have about 5 tokens per message.
_MOST_TOKENS = 4_000_000


class BadModelName(ValueError):
    """The body has an invalid model name. The message is for the client."""


def model_in_json(body: bytes | mmap) -> str:
    """Return the top-level "model" (or "agent") of a JSON object, without its "models/" prefix; "" if none.

    Stops at the name, so a body of 100 MB that starts with it is cheap, and gives up after millions of tokens. Lets
    other greenlets run in between. Raises BadModelName.
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
    """Yield each run of brackets and each string, except for strings longer than a slice."""
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
                # It continues in the next slice, where it is matched again from its start, unless it is long.
                is_in_string = token.start(1) == begin + 1
                place = token.end() if is_in_string else token.start(1) - 1
                break
            if token.lastindex:
                yield token


def _model_at(body: bytes | mmap, after_key: int) -> str:
    """Return the name after a key that ends at `after_key`; "" for null, an empty name or a missing one."""
    colon = _after_spaces(body, after_key)
    if body[colon : colon + 1] != b":":
        return ""
    begin = _after_spaces(body, colon + 1)
    if begin >= len(body) or body[begin : begin + 4] == b"null":
        return ""
    if body[begin : begin + 1] != b'"':
        raise BadModelName("The model in the body is not a string.")
    most = begin + 12 * (_LONGEST_NAME + len("models/"))  # a character can take two escapes of 6 bytes
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
        raise BadModelName(f"The model in the body is longer than {_LONGEST_NAME} characters or not printable.")
    return name


def _after_spaces(body: bytes | mmap, place: int) -> int:
    for end in slice_ends(place, len(body)):
        if (spaces := _SPACES.match(body, place, end)) and spaces.end() < end:
            return spaces.end()
        place = end
    return place
