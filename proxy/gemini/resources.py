"""The resources that belong to one Google project and that requests and answers name. Pure functions.

They are files, caches, batches, stores, interactions and the like. A request that names one must use a key of its
project: with any other key, Google answers 403 or 404. A resource is called as in Google's API, such as `files/abc` or
`models/veo-3/operations/xyz`; what is inside another resource belongs to that. An upload in progress is called
`uploads/ID`. Sources: ai.google.dev/api, the official clients, and recordings of them.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from mmap import mmap
from typing import Any
from urllib.parse import parse_qs, unquote

from proxy.bodies.slices import slice_ends

_COLLECTIONS = frozenset(
    {
        *("files", "generatedFiles", "cachedContents", "batches", "operations", "fileSearchStores", "ragStores"),
        *("corpora", "tunedModels", "interactions", "auth_tokens", "agents", "environments", "triggers", "webhooks"),
    }
)
# Actions of models whose answer names a new resource.
_CREATING_ACTIONS = frozenset({"batchGenerateContent", "asyncBatchEmbedContent", "predictLongRunning"})
_TRANSFER = re.compile(r"/(?:upload|download)(?=/)")
_VERSION = re.compile(r"v[0-9][0-9a-z]*")
_LIST = re.compile(rf"/v[0-9][0-9a-z]*/(?:openai/)?(?:{'|'.join(sorted(_COLLECTIONS))})/?")
_ID = re.compile(r"[\w.~+=-]{1,200}", re.ASCII)
_LONGEST = 300

_STRING = rb'"((?:[^"\\]|\\/){1,600})"'
# Keys of requests whose value names a resource. Inside a string the quotes would be escaped.
_PIN = re.compile(
    rb'"(?:(file(?:Uri|_uri|Name|_name)|uri|cached(?:Content|_content)|input_file_id|previous_interaction_id)"'
    rb"\s{0,64}:\s{0,64}%b"
    rb'|file(?:SearchStoreNames|_search_store_names)"\s{0,64}:\s{0,64}\[([^\]]{1,4000})\])' % _STRING
)
_ANY_STRING = re.compile(_STRING)
_LONGEST_PIN = 4_200  # of a match
# Keys of requests whose value is an id rather than a name, and its collection.
_IDS_IN = {"input_file_id": "files", "previous_interaction_id": "interactions"}

_NAMING_KEYS = frozenset(
    {
        *("name", "id", "uri", "responsesFile", "downloadUri", "file", "batch", "input_file_id", "output_file_id"),
        *("error_file_id", "videoUri", "fileName"),
    }
)
_EXPIRY_KEYS = ("expireTime", "expirationTime")
# How long a resource lasts if nothing else is known, by its collection.
_LAST = {
    "files": timedelta(hours=48),
    "uploads": timedelta(days=7),
    "auth_tokens": timedelta(hours=24),
    "sessions": timedelta(hours=24),
}
_OTHERS_LAST = timedelta(days=60)


def name_of(text: str) -> str:
    """Return the name of the resource that a name or URL leads to; "" if it is none that belongs to a project."""
    text = text.partition("?")[0]
    if "://" in text:
        text = text.split("://", 1)[1].partition("/")[2]
    parts = [unquote(part) for part in text.split("/") if part]
    while parts and (parts[0] in ("upload", "download", "openai") or _VERSION.fullmatch(parts[0])):
        parts.pop(0)
    if parts[:1] == ["models"] and len(parts) > 3 and parts[2] == "operations":
        kept = parts[:4]
    elif len(parts) > 1 and parts[0] in _COLLECTIONS:
        kept = parts[:2]
    else:
        return ""
    kept[-1] = kept[-1].partition(":")[0]
    name = "/".join(kept)
    return name if all(_ID.fullmatch(part) for part in kept) and len(name) <= _LONGEST else ""


def upload_of(path: str) -> str:
    """Return the upload that a path of the API continues, as `uploads/ID`; "" if it continues none."""
    if not _TRANSFER.match(path) or "upload_id=" not in path:
        return ""
    [upload_id] = parse_qs(path.partition("?")[2]).get("upload_id", [""])[:1]
    return f"uploads/{upload_id}" if _ID.fullmatch(upload_id) else ""


def resource_in_path(path: str) -> str:
    """Return the resource that a path of the API leads to, "" if none. path: with its query."""
    return upload_of(path) or name_of(path)


def resources_in_body(body: bytes | mmap) -> set[str]:
    """Return the resources that a request refers to. Lets other greenlets run while it searches a long body."""
    found: set[str] = set()
    start = 0
    for end in slice_ends(0, len(body)):
        piece = body[max(0, start - _LONGEST_PIN) : end]
        start = end
        for key, value, stores in _PIN.findall(piece):
            if stores:
                found.update(name_of(_text(store)) for store in _ANY_STRING.findall(stores))
                continue
            text = _text(value)
            collection = _IDS_IN.get(key.decode(), "")
            found.add(name_of(text) or (name_of(f"{collection}/{text}") if collection else ""))
    return found - {""}


def can_name_resources(path: str, action: str) -> bool:
    """Tell whether answers from this path can name resources of the project."""
    first = next((part for part in path.partition("?")[0].split("/") if part.partition(":")[0] in _COLLECTIONS), "")
    return action in _CREATING_ACTIONS or (bool(first) and not action)


def is_list_of_resources(path: str) -> bool:
    """Tell whether a path of the API, with its query, leads to all resources of a kind."""
    return bool(_LIST.fullmatch(path.partition("?")[0]))


def strings_in(content: bytes) -> list[tuple[str, str]]:
    """Return all strings in an answer with their keys; those in a list have the list's key.

    content: JSON or the beginning of an event stream.
    """
    return [pair for document in _documents(content) for pair in _strings(document)]


def resources_in_answer(strings: Iterable[tuple[str, str]], path: str) -> set[str]:
    """Return the resources that an answer names.

    strings: those of the answer, see `strings_in`. path: of the request, with its query.
    """
    collection = "interactions" if "/interactions" in path else "batches" if "/openai/batches" in path else ""
    found: set[str] = set()
    for key, value in strings:
        if key in _NAMING_KEYS:
            name = name_of(value)
            found.add(name or (name_of(f"{collection}/{value}") if key == "id" and collection else ""))
    return found - {""}


def expiries_of(names: Iterable[str], strings: Iterable[tuple[str, str]], moment: datetime) -> dict[str, datetime]:
    """Return when each of the resources that an answer names can be forgotten.

    strings: those of the answer, whose own time counts if it has only one.
    """
    times = {value for key, value in strings if key in _EXPIRY_KEYS}
    try:
        told = datetime.fromisoformat(times.pop() if len(times) == 1 else "")
    except ValueError:
        return {name: moment + _LAST.get(name.partition("/")[0], _OTHERS_LAST) for name in names}
    return dict.fromkeys(names, min(told.replace(tzinfo=told.tzinfo or UTC), moment + _OTHERS_LAST))


def can_be_looked_up(name: str) -> bool:
    """Tell whether a GET shows which project a resource belongs to."""
    return not name.startswith(("uploads/", "auth_tokens/", "sessions/"))


def session_in(message: bytes, *path: str) -> str:
    """Return the session that a message of the Live API names by its handle at `path`; "" if it names none.

    Handles are long and of any characters.
    """
    try:
        value = json.loads(message)
        for key in path:
            value = value.get(key)
    except (ValueError, AttributeError, RecursionError):
        return ""
    if not isinstance(value, str) or not value:
        return ""
    return f"sessions/{hashlib.sha256(value.encode()).hexdigest()}"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").replace("\\/", "/")


def _documents(content: bytes) -> list[Any]:
    """Return the JSON of an answer: one document, or those of the complete events."""
    texts = [content]
    if content.lstrip()[:1] not in (b"{", b"["):
        texts = [line[5:] for line in content.splitlines(keepends=True) if line[:5] == b"data:" and line[-1:] == b"\n"]
    documents = []
    for text in texts:
        try:
            documents.append(json.loads(text))
        except (ValueError, RecursionError):
            continue
    return documents


def _strings(document: Any) -> list[tuple[str, str]]:
    found, left = [], [("", document)]
    while left:
        key, value = left.pop()
        if isinstance(value, str):
            found.append((key, value))
        elif isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, item) for item in value]
    return found
