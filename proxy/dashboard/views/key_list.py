"""The list of keys: state and usage of each, and actions on several at once."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

from django import forms
from django.contrib.admin.views.decorators import staff_member_required
from django.core.paginator import Page, Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from proxy.dashboard.parts.filters import Filters, read_filters
from proxy.dashboard.parts.links import key_address, project_link
from proxy.dashboard.parts.page import answer
from proxy.dashboard.parts.sparkline import sparkline
from proxy.dashboard.parts.tables import Cell, Column, Table
from proxy.dashboard.reports import keys as report
from proxy.dashboard.reports import today
from proxy.gemini.refusals import Window
from proxy.models import ApiKey, ExhaustionEvent, KeyState, database_now
from proxy.pool.actions import ACTIONS, apply_posted, may_change_keys

PAGE = 50
_DAYS = 28


class KeyListForm(forms.Form):
    """What the address can hold besides the filters and the page."""

    # Part of a key's label or of its project's name.
    q = forms.CharField(required=False)
    state = forms.ChoiceField(choices=[(state, state) for state in report.STATES], required=False)
    sort = forms.ChoiceField(
        choices=[(f"{sign}{name}", name) for name in report.SORTS for sign in ("", "-")], required=False
    )


@require_http_methods(["GET", "HEAD", "POST"])
@staff_member_required
def key_list(request: HttpRequest) -> HttpResponse:
    """Show a page of keys. A POST runs an action on the selected keys and redirects to the same page."""
    if request.method == "POST":
        apply_posted(request)
        return redirect(request.get_full_path())
    moment = database_now()
    filters = read_filters(request, moment)
    form = KeyListForm(request.GET)
    form.is_valid()
    searched = form.cleaned_data.get("q", "")[:100]
    state = form.cleaned_data.get("state", "")
    sort = form.cleaned_data.get("sort") or "name"
    found = report.found(moment, filters.period, searched=searched, state=state).select_related("project")
    page = Paginator(report.in_order(found, moment, filters.period, sort), PAGE).get_page(request.GET.get("page"))
    also = {"q": searched, "state": state, "sort": "" if sort == "name" else sort}
    may_change = may_change_keys(request)
    is_narrowed = bool(searched or state or filters.without)
    narrowed = urlencode([(name, value) for name, value in also.items() if value])
    return answer(
        request,
        "keys",
        _("Keys"),
        filters=filters,
        tables=[_table(page, filters, moment, sort, may_choose=may_change, is_narrowed=is_narrowed)],
        moment=moment,
        keys=page,
        newer=filters.query(**also, page=page.number - 1) if page.has_previous() else "",
        older=filters.query(**also, page=page.number + 1) if page.has_next() else "",
        searched=searched,
        state=state,
        states=_states(),
        sort=also["sort"],
        without=[(name, f"{address}&{narrowed}") for name, address in filters.without],
        actions=ACTIONS.values() if may_change else [],
    )


def _states() -> list[tuple[str, str]]:
    words = {"usable": _("● usable"), "limited": _("◐ rate-limited"), "bad": _("✕ bad"), "disabled": _("○ disabled")}
    return [(state, words[state]) for state in report.STATES]


def state_of(key: ApiKey, events: Sequence[ExhaustionEvent]) -> str:
    """Return a key's state: a shape, a word, the reason and the end. events: of its project, the longest first."""
    if key.state is KeyState.DELETED:
        return _("⊘ deleted at %s") % _shown(key.deleted_at)
    if key.state is KeyState.BAD:
        reason = f"{key.get_fault_display()}: {key.fault_reason or _('no reason given')}"
        return _("✕ bad since %(moment)s: %(reason)s") % {"moment": _shown(key.fault_since), "reason": reason}
    if key.state is KeyState.DISABLED:
        return _("○ disabled")
    if not events:
        return _("● usable")
    longest = events[0]
    words = {"model": longest.model_name or _("all models"), "until": _shown(longest.until)}
    words["more"] = _(", and for %s more") % (len(events) - 1) if len(events) > 1 else ""
    if longest.until is None:
        return _("◐ unavailable for %(model)s until revived manually%(more)s") % words
    if longest.window == Window.DAY:
        return _("◐ exhausted for %(model)s until %(until)s%(more)s") % words
    return _("◐ rate-limited for %(model)s until %(until)s%(more)s") % words


def _shown(moment: datetime | None) -> str:
    return date_format(localtime(moment), "Y-m-d H:i") if moment else "–"


def _table(
    page: "Page[ApiKey]", filters: Filters, moment: datetime, sort: str, *, may_choose: bool, is_narrowed: bool
) -> Table:
    columns = [
        Column("name", _("Key")),
        Column("project", _("Project")),
        Column("state", _("State"), "words"),
        Column("used", _("Answers today"), "number"),
        Column("limit", _("Daily limit of its project"), "number"),
        Column("recently", _("28 days")),
        Column("last_used", _("Last used"), "moment"),
    ]
    model_name = filters.period.model_name
    shown = list(page.object_list)
    projects = [key.project_id for key in shown]
    days = [today(moment) - timedelta(days=before) for before in reversed(range(_DAYS))]
    usage = report.answers_by_day([key.pk for key in shown], days[0], days[-1], model_name)
    limits = report.limits_of(projects, model_name)
    events = report.events_of(projects, moment, model_name)
    row_of = partial(_row, filters=filters, days=days, may_choose=may_choose)
    rows = [
        row_of(key, usage[key.pk], limit=limits.get(key.project_id), events=events.get(key.project_id, []))
        for key in shown
    ]
    note = _("CSV and JSON contain the keys on this page.") if page.has_other_pages() else ""
    return Table("keys", _("Keys"), columns, rows, _empty(filters, is_narrowed), note, sort, report.SORTS)


def _row(
    key: ApiKey,
    usage: dict[date, int],
    *,
    limit: int | None,
    events: list[ExhaustionEvent],
    filters: Filters,
    days: list[date],
    may_choose: bool,
) -> tuple[object, ...]:
    numbers = [usage.get(day, 0) for day in days]
    return (
        _name(key, filters, may_choose),
        project_link(key.project_id, str(key.project), filters),
        state_of(key, events),
        numbers[-1],
        limit,
        Cell(sum(numbers), html=sparkline(numbers, days)),
        key.last_used,
    )


def _name(key: ApiKey, filters: Filters, may_choose: bool) -> Cell:
    """Return the key's label as a link to its page, with a checkbox to select it."""
    link = format_html('<a href="{}">{}</a>', key_address(key.pk, filters), key.label)
    if may_choose:
        link = format_html(
            '<label class="choice"><input type="checkbox" name="chosen" value="{}">'
            '<span class="visually-hidden">{}</span></label> {}',
            key.pk,
            _("Select %s") % key.label,
            link,
        )
    return Cell(key.label, html=link)


def _empty(filters: Filters, is_narrowed: bool) -> str:
    if is_narrowed:
        everything = reverse("proxy:keys") + filters.query(project="", key="", model="")
        return format_html('{} <a href="{}">{}</a>', _("No key matches."), everything, _("Show all keys"))
    add = reverse("admin:proxy_apikey_add")
    return format_html('{} <a href="{}">{}</a>', _("There are no keys yet."), add, _("Add keys"))
