"""An error body as data, also where something on the way has packed it into another one. Pure functions."""

import json
import re
from collections.abc import Iterator
from typing import Any

_LONGEST = 262_144  # bytes; what is longer is no error of Google's
_DEEPEST = 16  # lists, objects and texts within each other
_MOST_ITEMS = 32  # of a list
_OLDER_FORM = {"quota_limit", "quota_limit_value"}
_TIMES = ((re.compile(r"/min\b"), "PerMinute"), (re.compile(r"/d\b"), "PerDay"))  # in `1/min/{project}`


def error_in(content: bytes) -> dict[str, Any]:
    """Return the `error` object of a body. Its `details` are a list of objects; all that is there when it has none.

    Gateways put the body they got into a list, or as text into the `message` of their own error, and some do both, or
    more than once. The result then has the innermost message and the details of all.
    """
    errors = list(_errors_in(_parsed(content), _DEEPEST))
    innermost = errors[-1] if errors else {}
    return innermost | {"details": [detail for error in errors for detail in _details_of(error)]}


def dicts(items: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list; nothing for what is no list."""
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())


def violations_in(error: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the quotas that an error names, in the form of `violations`, each with `quotaId` and maybe `quotaValue`.

    The older form tells a quota in the metadata of an ErrorInfo, as `quota_limit`, `quota_limit_value` and so on.
    """
    told = [item for detail in error["details"] for item in dicts(detail.get("violations"))]
    return told or [_violation_in(data) for data in metadata_in(error) if _OLDER_FORM & data.keys()]


def metadata_in(error: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the `metadata` of an error's details, as far as they are objects."""
    return [data for detail in error["details"] if isinstance(data := detail.get("metadata"), dict)]


def _violation_in(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the quota that an ErrorInfo tells. Its id names what is counted, and in which time, as new ones do."""
    metric = str(metadata.get("quota_metric", "")).rpartition("/")[2]
    time = next((name for pattern, name in _TIMES if pattern.search(str(metadata.get("quota_unit", "")))), "")
    words = re.split(r"[^A-Za-z0-9]+", f"{metric} {metadata.get('quota_limit', '')} {time}"[:500])
    violation = {"quotaId": "".join(word[:1].upper() + word[1:] for word in words)}
    if "quota_limit_value" in metadata:
        violation["quotaValue"] = metadata["quota_limit_value"]
    return violation | {"quotaDimensions": metadata}


def _errors_in(value: Any, levels: int, *, is_error: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the errors in `value`, the outermost first. is_error: an object here is one, whatever is in it."""
    if not levels:
        return
    if isinstance(value, str):
        if (unpacked := _unpacked(value)) is not value:
            yield from _errors_in(unpacked, levels - 1, is_error=is_error)
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
    details = _unpacked(error.get("details"))
    items = details if isinstance(details, list) else [details]
    return dicts([_unpacked(item) for item in items])


def _unpacked(value: Any) -> Any:
    """Return what a text of JSON says; any other value as it is."""
    is_packed = isinstance(value, str) and value.lstrip().startswith(("{", "[", '"'))
    return _parsed(value) if is_packed else value


def _parsed(text: bytes | str) -> Any:
    if len(text) > _LONGEST:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
