"""The activity log: what people change, stored as Django's LogEntry. One action is one entry, for any number of rows.

The admin would write an entry for each row: 10,000 entries for one click, which nobody reads and which hold the write
lock of the pool. Entries contain masked labels, never a key.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, QuerySet

from proxy.security.masking import mask_text

MOST_TOLD = 5  # labels in an entry
_LONGEST = 200  # of LogEntry.object_repr


def note(
    user: Any, done: str, rows: QuerySet[Any] | Sequence[Model], *, flag: int = CHANGE, count: int = 0, to: str = ""
) -> None:
    """Note that a user did something to rows; do nothing when there are none. At most four queries.

    done: the action, as a text that is translated when it is shown. count: the number of rows, if `rows` has only the
    first of them. to: where they were moved.
    """
    first = list((rows.order_by("pk") if isinstance(rows, QuerySet) else rows)[:MOST_TOLD])
    if not first:
        return
    count = count or (rows.count() if isinstance(rows, QuerySet) else len(rows))
    described = _describe(map(str, first), count, to)
    LogEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(type(first[0])),
        object_id=str(first[0].pk) if count == 1 else None,
        object_repr=described,
        action_flag=flag,
        change_message=f"{done}: {described}",
    )


def _describe(labels: Iterable[str], count: int, to: str) -> str:
    """Return the labels, their number if there are several, and where they were moved, as one masked line."""
    end = (f" ({count:,})" if count > 1 else "") + (f" → {_line(to)[:60]}" if to else "")
    room = _LONGEST - len(end) - 1
    text = ", ".join(map(_line, labels))
    return (f"{text[:room]}…" if len(text) > room else text) + end


def _line(text: str) -> str:
    return " ".join(mask_text(text, settings.PLACEHOLDER_TOKEN).split())
