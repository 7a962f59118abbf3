"""The keys: which there are, how each of them stands, and what can be done with several at once."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

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
from proxy.models import ApiKey, ExhaustionEvent, KeyState
from proxy.pool.actions import ACTIONS, act

PAGE = 50
_DAYS = 28


@require_http_methods(["GET", "HEAD", "POST"])
@staff_member_required
def key_list(request: HttpRequest) -> HttpResponse:
    """Show a page of the keys; or do what was posted to those that were chosen, and show the same page again."""
    moment = datetime.now(UTC)
    if request.method == "POST":
        act(request, moment)
        return redirect(request.get_full_path())
    filters = read_filters(request, moment)
    given = request.GET
    searched = given.get("q", "").replace("\0", "").strip()[:100]
    state = given.get("state", "") if given.get("state") in report.STATES else ""
    sort = given.get("sort", "")
    sort = sort if sort.removeprefix("-") in report.SORTS else "name"
    found = report.found(moment, filters.period, searched=searched, state=state).select_related("project")
    page = Paginator(report.in_order(found, moment, filters.period, sort), PAGE).get_page(given.get("page"))
    also = {"q": searched, "state": state, "sort": "" if sort == "name" else sort}
    may_change = request.user.has_perm("proxy.change_apikey")
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
        actions=ACTIONS if may_change else {},
    )


def _states() -> list[tuple[str, str]]:
    words = {"usable": _("● usable"), "resting": _("◐ resting"), "bad": _("✕ bad"), "disabled": _("○ disabled")}
    return [(state, words[state]) for state in report.STATES]


def state_of(key: ApiKey, rests: Sequence[ExhaustionEvent]) -> str:
    """Return how a key stands: a shape, a word, why, and until when. rests: of its project, the longest first."""
    if key.state is KeyState.DELETED:
        return _("⊘ deleted at %s") % _shown(key.deleted_at)
    if key.state is KeyState.BAD:
        reason = f"{key.get_fault_display()}: {key.fault_reason or _('no reason given')}"
        return _("✕ bad since %(moment)s: %(reason)s") % {"moment": _shown(key.fault_since), "reason": reason}
    if key.state is KeyState.DISABLED:
        return _("○ disabled")
    if not rests:
        return _("● usable")
    words = {"model": rests[0].model_name or _("all models"), "until": _shown(rests[0].until)}
    words["more"] = _(", and for %s more") % (len(rests) - 1) if len(rests) > 1 else ""
    if rests[0].until is None:
        return _("◐ resting for %(model)s until somebody acts%(more)s") % words
    return _("◐ resting for %(model)s until %(until)s%(more)s") % words


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
        Column("limit", _("Limit of its project's day"), "number"),
        Column("recently", _("28 days")),
        Column("last_used", _("Last used"), "moment"),
    ]
    model_name = filters.period.model_name
    shown = list(page.object_list)
    projects = [key.project_id for key in shown]
    days = [today(moment) - timedelta(days=before) for before in reversed(range(_DAYS))]
    usage = report.answers_by_day([key.pk for key in shown], days[0], days[-1], model_name)
    limits = report.limits_of(projects, model_name)
    rests = report.rests_of(projects, moment, model_name)
    row_of = partial(_row, filters=filters, days=days, may_choose=may_choose)
    rows = [
        row_of(key, usage[key.pk], limit=limits.get(key.project_id), rests=rests.get(key.project_id, []))
        for key in shown
    ]
    note = _("CSV and JSON hold the keys of this page.") if page.has_other_pages() else ""
    return Table("keys", _("Keys"), columns, rows, _empty(filters, is_narrowed), note, sort, report.SORTS)


def _row(
    key: ApiKey,
    usage: dict[date, int],
    *,
    limit: int | None,
    rests: list[ExhaustionEvent],
    filters: Filters,
    days: list[date],
    may_choose: bool,
) -> tuple[object, ...]:
    numbers = [usage.get(day, 0) for day in days]
    return (
        _name(key, filters, may_choose),
        project_link(key.project_id, str(key.project), filters),
        state_of(key, rests),
        numbers[-1],
        limit,
        Cell(sum(numbers), html=sparkline(numbers, days)),
        key.last_used,
    )


def _name(key: ApiKey, filters: Filters, may_choose: bool) -> Cell:
    """Return the key's label as a link to its page, with a box to choose it."""
    link = format_html('<a href="{}">{}</a>', key_address(key.pk, filters), key.label)
    if may_choose:
        link = format_html(
            '<label class="choice"><input type="checkbox" name="chosen" value="{}">'
            '<span class="visually-hidden">{}</span></label> {}',
            key.pk,
            _("Choose %s") % key.label,
            link,
        )
    return Cell(key.label, html=link)


def _empty(filters: Filters, is_narrowed: bool) -> str:
    if is_narrowed:
        everything = reverse("proxy:keys") + filters.query(project="", key="", model="")
        return format_html('{} <a href="{}">{}</a>', _("No key is like that."), everything, _("Show all keys"))
    add = reverse("admin:proxy_apikey_add")
    return format_html('{} <a href="{}">{}</a>', _("There are no keys yet."), add, _("Add keys"))
