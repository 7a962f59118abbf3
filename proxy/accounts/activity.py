"""What people did, written down as Django's LogEntry. One entry stands for one action, however many rows it met.

The admin would write an entry for each row: 10,000 of them for one click, which nobody reads and which wait for the
write lock of the pool. Labels are masked as everywhere; no key is in an entry.
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
    """Write down that somebody did something to rows; nothing when there are none. Four queries at most.

    done: what, as a text that is translated when it is shown. count: how many there were, where `rows` are only the
    first of them. to: what they belong to now.
    """
    first = list((rows.order_by("pk") if isinstance(rows, QuerySet) else rows)[:MOST_TOLD])
    if not first:
        return
    count = count or (rows.count() if isinstance(rows, QuerySet) else len(rows))
    told = _told(map(str, first), count, to)
    LogEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(type(first[0])),
        object_id=str(first[0].pk) if count == 1 else None,
        object_repr=told,
        action_flag=flag,
        change_message=f"{done}: {told}",
    )


def _told(labels: Iterable[str], count: int, to: str) -> str:
    """Return labels, their number if it is not one, and where they went, as one masked line."""
    end = (f" ({count:,})" if count > 1 else "") + (f" → {_line(to)[:60]}" if to else "")
    room = _LONGEST - len(end) - 1
    told = ", ".join(map(_line, labels))
    return (f"{told[:room]}…" if len(told) > room else told) + end


def _line(text: str) -> str:
    return " ".join(mask_text(text, settings.PLACEHOLDER_TOKEN).split())
