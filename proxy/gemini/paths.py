"""Finds the path of the Gemini API that a client means, even with a wrong base URL. Pure functions.

People enter a base URL with an extra version, with a full endpoint, or with the path of another proxy, and programs
append their own path. A few general rules find the intended path: tidy the segments, start at the last segment that can
start a path of the API, and keep the version next to it. The forms come from documentation and issue trackers of
clients. `tests/test_paths.py` lists them.
"""

import re
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote, unquote

# Collections, which follow the version: those of Gemini's API, those of OpenAI's API, and those of both.
_GEMINI = (
    *("models", "tunedModels", "files", "generatedFiles", "cachedContents", "batches", "operations", "interactions"),
    *("fileSearchStores", "ragStores", "corpora", "dynamic", "auth_tokens", "media"),
    *("agents", "environments", "triggers", "webhooks"),
)
_WITHOUT_VERSION = ("ws", "$discovery")
_OPENAI_ONLY = frozenset(
    {"audio", "chat", "completions", "embeddings", "fine_tuning", "images", "moderations", "responses", "videos"}
)
_IN_BOTH = frozenset({"batches", "files", "models"})
_SPELLING = {name.lower(): name for name in (*_GEMINI, *_WITHOUT_VERSION, *_OPENAI_ONLY)}
_MODELS = ("models", "tunedmodels")
# The ends of base URLs to which programs append a path.
_BEFORE_A_PATH = frozenset({"openai", "models", "completions"})
_TRANSFERS = ("upload", "download")

GENERATING = frozenset(
    {
        *("generateContent", "streamGenerateContent", "bidiGenerateContent", "batchGenerateContent", "generateAnswer"),
        *("embedContent", "batchEmbedContents", "asyncBatchEmbedContent", "predict", "predictLongRunning"),
        *("generateText", "generateMessage", "embedText", "batchEmbedText"),
    }
)
_ACTIONS = {action.lower(): action for action in (*GENERATING, "countTokens", "countTextTokens", "countMessageTokens")}

_OPENAI_HOME = "/v1beta/openai/"
_USUAL_VERSION = "v1beta"
_VERTEX_VERSION = "v1beta1"  # of Vertex AI, whose other segments are removed as well
_VERSION = re.compile(r"v\d\w*", re.ASCII)
_SLASH = re.compile("/|%2f", re.IGNORECASE)
_BLANKS = " \t\r\n\v\f\xa0\u200b\u2060\ufeff"  # including those copied from web pages
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\]")
_HARMLESS = re.compile(r"[\w.:~@+-]+", re.ASCII)
_NOT_ENCODED = ":@!$&'()*+,;=~"


class BadPath(ValueError):
    """The path could lead somewhere other than the API. The message is for the client."""


class UnknownPath(BadPath):
    """The API has no such path."""


class Oddity(StrEnum):
    """How a path differs from the intended one, in words for the log."""

    NONE = ""
    SPELLING = "unexpected slashes, blanks, capitals or encoded characters"
    TWICE = "a repeated version or segment"
    IN_FRONT = "extra segments at the start"
    MODEL = "a model that is not written as models/NAME:ACTION"


class Route(NamedTuple):
    """A path of the API."""

    # Raw, without a query.
    path: str
    # "" if it has none.
    model_name: str
    action: str
    is_openai: bool
    oddity: Oddity


def find_route(path: str, *, has_bearer: bool) -> Route:
    """Return the path of the API intended by `path`, which is raw and has no query. A correct path is unchanged.

    has_bearer: this is an OpenAI client, which decides whose `/v1/models`, `/v1/files` and `/v1/batches` are meant.
    Raises UnknownPath, and BadPath for `..`, control characters, backslashes and the like, encoded or not.
    """
    pieces = [piece for piece in map(_tidied, _SLASH.split(path)) if piece]
    words = [_word(piece) for piece in pieces]
    begin = _beginning(words)
    front, collection, tail = words[:begin], words[begin] if begin is not None else "", pieces[begin:]
    if begin is not None:
        tail[0] = _spelled(tail[0])
    elif _is_model_with_action(tail):
        front, collection, tail = words[:-1], "models", ["models", pieces[-1]]
    elif "openai" in words and words[-1] != "openai":  # any other path of Google's OpenAI endpoint
        behind = len(words) - words[::-1].index("openai")
        front, tail = words[:behind], pieces[behind:]
    else:
        raise UnknownPath("The Gemini API has no such path.")
    model_name = action = ""
    versions = [word for word in front if _VERSION.fullmatch(word)]
    if is_openai := _is_openai(collection, front, versions, tail, has_bearer=has_bearer):
        home = _OPENAI_HOME
        if collection == "chat":
            tail[1:2] = [piece.lower() for piece in tail[1:2]]
    elif collection in _WITHOUT_VERSION:
        home = "/"
    else:
        version = versions[-1] if versions else _USUAL_VERSION
        home = "/v1beta/" if version == _VERTEX_VERSION else f"/{version}/"
        if collection in _MODELS:
            tail, model_name, action = _model_in(tail)
        elif transfer := next((word for word in reversed(front) if word in _TRANSFERS), ""):
            home = f"/{transfer}{home}"
    found = home + "/".join(tail)
    oddity = Oddity.NONE if found == path else _oddity(path, pieces, front, tail, is_openai=is_openai)
    return Route(found, model_name, action, is_openai, oddity)


def _tidied(piece: str) -> str:
    """Return a segment without blanks at its ends, encoded as before."""
    text = unquote(piece)
    tidy = text.strip(_BLANKS)
    if tidy in (".", "..") or _CONTROL_CHARACTER.search(tidy):
        raise BadPath("The path has characters or segments (such as `..`) that no path of the Gemini API has.")
    return piece if tidy == text else quote(tidy, safe=_NOT_ENCODED)


def _word(piece: str) -> str:
    """Return the name of a segment in lower case. That of `files:register` is "files"."""
    text = unquote(piece).lower()
    name, _, action = text.partition(":")
    # `models:predict` has no model; in `files:predict` the model is called "files".
    is_collection = name in _MODELS or (name in _SPELLING and name not in _OPENAI_ONLY and action not in _ACTIONS)
    return name if is_collection else text


def _spelled(piece: str) -> str:
    name, colon, action = unquote(piece).partition(":")
    return _SPELLING[name.lower()] + colon + quote(action, safe=_NOT_ENCODED)


def _beginning(words: list[str]) -> int | None:
    """Return the position of the last word that can start a path of the API; None if none can."""
    begin: int | None = None
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        if word not in _SPELLING or (before, word) == ("chat", "completions"):
            continue
        is_after_version = bool(_VERSION.fullmatch(before))
        if word == "operations":  # other collections have operations too
            can_begin = begin is None and (not at or is_after_version)
        elif begin is None:
            can_begin = True
        else:
            is_chat = words[at : at + 2] == ["chat", "completions"]
            can_begin = is_chat or word == words[begin] or is_after_version or before in _BEFORE_A_PATH
        if can_begin:
            begin = at
    return begin


def _is_openai(collection: str, front: list[str], versions: list[str], tail: list[str], *, has_bearer: bool) -> bool:
    """Tell whether OpenAI's API is meant. Only Gemini's has actions after a colon."""
    if collection in _OPENAI_ONLY or not collection:
        return True
    if collection not in _IN_BOTH or any(":" in unquote(piece) for piece in tail):
        return False
    is_transfer = collection != "models" and not set(front).isdisjoint(_TRANSFERS)
    is_in_both = versions[-1:] in ([], ["v1"]) and not is_transfer
    return "openai" in front or (has_bearer and is_in_both)


def _is_model_with_action(pieces: list[str]) -> bool:
    """Tell whether a path without a collection ends in `NAME:ACTION`."""
    name, _, action = unquote(pieces[-1] if pieces else "").partition(":")
    return action.lower() in _ACTIONS and bool(name) and not _VERSION.match(name.lower())


def _model_in(tail: list[str]) -> tuple[list[str], str, str]:
    """Return a path from "models" on as Google expects it, the model's name, and the action."""
    collection, *rest = tail
    if not rest:
        return tail, "", ""
    if len(rest) > 1 and (action := unquote(rest[-1]).strip(":")).lower() in _ACTIONS:
        rest[-2:] = [f"{rest[-2]}:{action}"]  # `NAME/ACTION`
    if unquote(rest[-1]).rpartition(":")[2].lower() in _ACTIONS:
        rest = rest[-1:]  # `google/NAME:ACTION`
    text = unquote(rest[0])
    name, colon, action = (part.strip(_BLANKS) for part in text.partition(":"))
    if not name or len(rest) > 1:  # nothing follows an action
        return [collection, *rest], name, ""
    action = _ACTIONS.get(action.rpartition(":")[2].strip(_BLANKS).lower(), action)  # also `NAME:ACTION:ACTION`
    tidy = name + colon + action
    if tidy != text or _HARMLESS.fullmatch(tidy):
        rest[0] = quote(tidy, safe=_NOT_ENCODED)
    return [collection, *rest], name, action


def _oddity(path: str, pieces: list[str], front: list[str], tail: list[str], *, is_openai: bool) -> Oddity:
    """Return how a path differs from the intended one. OpenAI's own paths and a missing version are not odd."""
    before = front[1:] if front and front[0] in _TRANSFERS else front
    kinds = "".join("v" if _VERSION.fullmatch(word) else "o" if word == "openai" else "-" for word in before)
    if kinds not in (("", "v", "o", "vo") if is_openai else ("", "v")):
        known = {*_SPELLING, *_TRANSFERS}
        is_known = all(kind != "-" or word in known for kind, word in zip(kinds, before, strict=True))
        return Oddity.TWICE if is_known else Oddity.IN_FRONT
    if len(front) + len(tail) != len(pieces):
        return Oddity.MODEL
    is_tidy = path == "/" + "/".join([*front, *tail])
    return Oddity.NONE if is_tidy else Oddity.SPELLING
