"""Reads an error body, even if a gateway has put it inside another one. Pure functions."""

import json
import re
from collections.abc import Iterator
from typing import Any

_LONGEST = 262_144  # bytes; Google's errors are shorter
_DEEPEST = 16  # nested lists, objects and texts
_MOST_ITEMS = 32  # of a list
_OLDER_FORM = {"quota_limit", "quota_limit_value"}
_TIMES = ((re.compile(r"/min\b"), "PerMinute"), (re.compile(r"/d\b"), "PerDay"))  # in `1/min/{project}`


def error_in(content: bytes) -> dict[str, Any]:
    """Return the `error` object of a body. Its `details` are always a list of objects, which may be empty.

    Gateways put the body they received into a list, or as text into the `message` of their own error, or both, even
    repeatedly. The result has the innermost message and the details of all errors.
    """
    errors = list(_errors_in(_parsed(content), _DEEPEST))
    innermost = errors[-1] if errors else {}
    return innermost | {"details": [detail for error in errors for detail in _details_of(error)]}


def dicts(items: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in a list; nothing if `items` is not a list."""
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())


def violations_in(error: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the quotas that an error names, in the form of `violations`: `quotaId` and, in most, `quotaValue`.

    The older form has a quota in the metadata of an ErrorInfo: `quota_limit`, `quota_limit_value` and so on.
    """
    found = [item for detail in error["details"] for item in dicts(detail.get("violations"))]
    return found or [_violation_in(data) for data in metadata_in(error) if _OLDER_FORM & data.keys()]


def metadata_in(error: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the `metadata` objects in an error's details."""
    return [data for detail in error["details"] if isinstance(data := detail.get("metadata"), dict)]


def _violation_in(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the quota in an ErrorInfo, with a made-up id that names what is counted and in which time."""
    metric = str(metadata.get("quota_metric", "")).rpartition("/")[2]
    time = next((name for pattern, name in _TIMES if pattern.search(str(metadata.get("quota_unit", "")))), "")
    words = re.split(r"[^A-Za-z0-9]+", f"{metric} {metadata.get('quota_limit', '')} {time}"[:500])
    violation = {"quotaId": "".join(word[:1].upper() + word[1:] for word in words)}
    if "quota_limit_value" in metadata:
        violation["quotaValue"] = metadata["quota_limit_value"]
    return violation | {"quotaDimensions": metadata}


def _errors_in(value: Any, levels: int, *, is_error: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the errors in `value`, the outermost first. is_error: treat any object as an error."""
    if not levels:
        return
    if isinstance(value, str):
        if (inner := _decoded(value)) is not value:
            yield from _errors_in(inner, levels - 1, is_error=is_error)
    elif isinstance(value, list):
        for item in value[:_MOST_ITEMS]:
            if found := list(_errors_in(item, levels - 1, is_error=is_error)):
                yield from found
                return
    elif isinstance(value, dict):
        if is_error or {"message", "status"} <= value.keys() or {"message", "details"} <= value.keys():
            yield value
        yield from _errors_in(value.get("message"), levels - 1)
        yield from _errors_in(value.get("error"), levels - 1, is_error=True)


def _details_of(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    details = _decoded(error.get("details"))
    items = details if isinstance(details, list) else [details]
    return dicts([_decoded(item) for item in items])


def _decoded(value: Any) -> Any:
    """Return the value of a JSON text; any other value unchanged."""
    is_json = isinstance(value, str) and value.lstrip().startswith(("{", "[", '"'))
    return _parsed(value) if is_json else value


def _parsed(text: bytes | str) -> Any:
    if len(text) > _LONGEST:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
