"""Activity: what people changed in the admin and the dashboard."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from proxy.dashboard.parts.filters import Filters, NumberField, read_filters
from proxy.dashboard.parts.links import key_address
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Cell, Column, Table
from proxy.dashboard.reports import activity as report
from proxy.models import ApiKey, database_now
from proxy.models.history import ACTIVITY_DAYS
from proxy.security.masking import mask_text

if TYPE_CHECKING:
    from django.contrib.admin.models import LogEntry


class ActivityForm(forms.Form):
    """What the address can hold besides the filters."""

    # The id of a user.
    person = NumberField()
    # The id of the last entry on the previous page.
    before = NumberField()


@dashboard_page
def activity(request: HttpRequest) -> HttpResponse:
    """Show a page of changes, by everybody or by one person."""
    moment = database_now()
    filters = read_filters(request, moment)
    form = ActivityForm(request.GET)
    form.is_valid()
    person, before = form.cleaned_data.get("person") or 0, form.cleaned_data.get("before") or 0
    entries = report.entries(user_id=person, before=before)
    shown = entries[: report.PAGE]
    return answer(
        request,
        "activity",
        _("Activity"),
        filters=filters,
        tables=[_table(shown, filters)],
        moment=moment,
        people=report.people(),
        person=person,
        older=filters.query(person=person or "", before=shown[-1].pk) if len(entries) > report.PAGE else "",
        newer=filters.query(person=person or "") if before else "",
        days=ACTIVITY_DAYS,
    )


def _table(entries: Sequence["LogEntry"], filters: Filters) -> Table:
    columns = [
        Column("time", _("Time"), "second"),
        Column("who", _("User")),
        Column("what", _("Action"), "words"),
        Column("kind", _("Kind")),
        Column("on_which", _("Object"), "words"),
    ]
    rows = [
        (
            entry.action_time,
            entry.user.get_username(),
            _what(entry),
            entry.content_type.name if entry.content_type else "",
            _which(entry, filters),
        )
        for entry in entries
    ]
    return Table("activity", _("Activity, newest first"), columns, rows, _("No changes yet."))


def _what(entry: "LogEntry") -> str:
    """Return what was changed: our own texts in the reader's language, those of Django's forms as they are."""
    message = entry.get_change_message()
    done = message.removesuffix(f": {entry.object_repr}")
    text = _(done) if done and done != message else message or entry.get_action_flag_display()
    return mask_text(str(text), settings.PLACEHOLDER_TOKEN)


def _which(entry: "LogEntry", filters: Filters) -> Cell:
    text = mask_text(entry.object_repr, settings.PLACEHOLDER_TOKEN)
    is_key = entry.object_id and entry.content_type and entry.content_type.model_class() is ApiKey
    return Cell(text, href=key_address(int(entry.object_id or 0), filters) if is_key else "")
