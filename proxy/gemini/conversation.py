"""Recognizes the turns of a conversation by the beginning that they share. Pure functions.

Each turn repeats all messages before it. Google's implicit cache makes that cheap, but only within a project.
"""

import json
from functools import lru_cache
from hashlib import blake2b
from typing import Any

# Only this many beginnings are compared, the longest ones. A turn can add a few messages, such as calls of tools.
_MOST = 32
_LONGEST_BODY = 524_288  # parsed in a few milliseconds
# What comes before the first message, in Gemini's and in OpenAI's API.
_FRAME = ("systemInstruction", "system_instruction", "tools", "cachedContent", "cached_content")


def beginnings_of(body: bytes, model_name: str) -> tuple[int, ...]:
    """Return a 64-bit hash of each beginning of a conversation: its first messages up to each message, shortest first.

    Returns () for a body that is no conversation.
    """
    if len(body) > _LONGEST_BODY:
        return ()
    try:
        document = json.loads(body)
        return _beginnings_in(document, model_name) if isinstance(document, dict) else ()
    except (ValueError, RecursionError):
        return ()


def _beginnings_in(document: dict[str, Any], model_name: str) -> tuple[int, ...]:
    messages = document.get("contents", document.get("messages"))
    if not isinstance(messages, list):
        return ()
    frame = [(name, document[name]) for name in _FRAME if name in document]
    so_far = _digest(model_name, frame) if frame else _start(model_name)
    found = []
    for message in messages:
        so_far = _digest(so_far.hex(), message)
        if not (isinstance(message, dict) and message.get("role") in ("system", "developer")):
            found.append(int.from_bytes(so_far))
    return tuple(found[-_MOST:])


@lru_cache(maxsize=256)
def _start(model_name: str) -> bytes:
    return _digest(model_name, [])


def _digest(before: str, value: Any) -> bytes:
    # Clients repeat a message with its keys in the same order, and `repr` is several times as fast as JSON.
    return blake2b((before + repr(value)).encode(), digest_size=8).digest()
