"""The request log of a period, newest first."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Q

from proxy.dashboard.reports.period import Period
from proxy.models import ApiKey, LoggedRequest

PAGE = 50
_NEW_AT_ONCE = 100


def logged(period: Period, *, outcome: int = 0, request_id: str = "", before: int = 0) -> list[LoggedRequest]:
    """Return a page of the log, plus one row if there is another page. At most two queries.

    outcome: 0 for all. request_id: the first characters of an id, in any period. before: the id of the last row of the
    previous page, 0 for the first page.
    """
    rows = _of(period, outcome).order_by("-began", "-id")
    if request_id:
        rows = rows.filter(request_id__startswith=request_id)
    else:
        rows = rows.filter(began__gte=period.since, began__lt=period.until)
    if last := LoggedRequest.objects.filter(id=before).first():
        rows = rows.filter(Q(began__lt=last.began) | Q(began=last.began, id__lt=before))
    return list(rows[: PAGE + 1])


def arrived(period: Period, after: int, *, outcome: int = 0) -> list[LoggedRequest]:
    """Return the rows written after a row, newest first, at most a hundred. One query."""
    return list(_of(period, outcome).filter(id__gt=after).order_by("-id")[:_NEW_AT_ONCE])


def newest_id() -> int:
    """Return the id of the latest row; 0 when the log is empty."""
    return LoggedRequest.objects.order_by("-id").values_list("id", flat=True).first() or 0


def key_labels(rows: Iterable[LoggedRequest]) -> dict[int, str]:
    """Return the labels of all keys that these requests used. One query."""
    ids = {key_id for row in rows for key_id, _ in row.attempts}
    return {key.pk: key.label for key in ApiKey.objects.filter(id__in=ids)}


def _of(period: Period, outcome: int) -> Any:
    rows = LoggedRequest.objects.all()
    if period.model_name:
        rows = rows.filter(model_name=period.model_name)
    if period.key_id:
        rows = rows.filter(key=period.key_id)
    if period.project_id:
        rows = rows.filter(key__in=ApiKey.objects.filter(project=period.project_id).values("id"))
    return rows.filter(outcome=outcome) if outcome else rows
