"""Who did what in the admin and the dashboard, newest first."""

from django.contrib.admin.models import LogEntry

PAGE = 50


def done(*, user_id: int = 0, before: int = 0) -> list[LogEntry]:
    """Return a page of entries and one more if there is another page; one query.

    user_id: 0 for everybody; before: the id of the last entry of the page before.
    """
    entries = LogEntry.objects.select_related("user", "content_type").order_by("-id")
    if user_id:
        entries = entries.filter(user=user_id)
    if before:
        entries = entries.filter(id__lt=before)
    return list(entries[: PAGE + 1])


def people() -> list[tuple[int, str]]:
    """Return the id and name of everybody who did something, by name; one query."""
    return list(LogEntry.objects.order_by("user__username").values_list("user", "user__username").distinct())
