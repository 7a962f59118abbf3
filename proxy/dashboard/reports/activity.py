"""What people changed in the admin and the dashboard, newest first."""

from django.contrib.admin.models import LogEntry

PAGE = 50


def entries(*, user_id: int = 0, before: int = 0) -> list[LogEntry]:
    """Return a page of entries, plus one more if there is another page. One query.

    user_id: 0 for everybody. before: the id of the last entry of the previous page, 0 for the first page.
    """
    found = LogEntry.objects.select_related("user", "content_type").order_by("-id")
    if user_id:
        found = found.filter(user=user_id)
    if before:
        found = found.filter(id__lt=before)
    return list(found[: PAGE + 1])


def people() -> list[tuple[int, str]]:
    """Return the id and name of everybody who changed something, sorted by name. One query."""
    return list(LogEntry.objects.order_by("user__username").values_list("user", "user__username").distinct())
