"""Exhaustion: what ran out on a quota day, when, and how many more projects would have lasted."""

from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from proxy.dashboard.parts.filters import Filters, read_filters
from proxy.dashboard.parts.formats import model_name
from proxy.dashboard.parts.lanes import grid, hours, lanes, legend, percent, project_name
from proxy.dashboard.parts.links import model_link, project_link, rested_model
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Column, Figure, Table
from proxy.dashboard.reports import exhaustion as report
from proxy.dashboard.reports import today
from proxy.dashboard.reports.exhaustion import DayOfRests, QuotaDay, Spending
from proxy.models import ExhaustionEvent

_ONE_DAY = timedelta(days=1)


@dashboard_page
def exhaustion(request: HttpRequest) -> HttpResponse:
    """Show what ran out on the day of `?day=`."""
    moment = datetime.now(UTC)
    filters = read_filters(request, moment)
    shown, problem = _day_in(request.GET.get("day", ""), today(moment))
    day = QuotaDay.of(shown, settings.QUOTA_ZONE)
    found = report.day_of_rests(day, filters.period)
    models = report.spending(found.spent)
    lines = hours(day, settings.QUOTA_ZONE)
    return answer(
        request,
        "exhaustion",
        _("Exhaustion"),
        filters=filters,
        tables=[_rests_table(found, filters), _models_table(models, found, day, filters)],
        moment=moment,
        figures=_figures(found, models, day),
        lanes=lanes(found.rests, day, reverse("proxy:keys") + filters.query(project="") + "&project="),
        hours=lines,
        grid=grid(lines, percent(day.share(moment)) if day.start <= moment < day.end else ""),
        shapes=legend(),
        more=_more(found),
        shown_day=shown,
        problem=problem,
        previous=(shown - _ONE_DAY, filters.query(day=shown - _ONE_DAY)),
        next=(shown + _ONE_DAY, filters.query(day=shown + _ONE_DAY)),
        without=[(name, f"{address}&day={shown}") for name, address in filters.without],
    )


def _day_in(text: str, otherwise: date) -> tuple[date, str]:
    """Return the day that the address asks for, and what is wrong with it, if anything."""
    if not text:
        return otherwise, ""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return otherwise, _("Write the day like 2026-11-25; this is today.")
    if not 2000 < day.year < 2200:
        return otherwise, _("There is nothing to tell of that day; this is today.")
    return day, ""


def _figures(found: DayOfRests, models: list[Spending], day: QuotaDay) -> list[Figure]:
    share = report.median_of(one.share for one in found.spent)
    most = max(models, key=lambda row: row.needed, default=None)
    return [
        Figure(_("projects that ran out"), len({one.project_id for one in found.spent}), note=_("of a day's quota")),
        Figure(_("median time of running out"), _time(share, day), note=_("of a day's quota, all models")),
        Figure(
            _("more projects needed"),
            most.needed if most else 0,
            note=_("each with a key, for %s") % (model_name(most.model_name)) if most and most.needed else "",
        ),
        Figure(_("projects that rested"), found.projects, note=_("for whatever reason, however long")),
    ]


def _time(share: float | None, day: QuotaDay) -> str:
    return "" if share is None else date_format(localtime(day.moment(share)), "H:i")


def _more(found: DayOfRests) -> str:
    """Return what is left out, "" when nothing is."""
    left_out = []
    if found.shown < found.projects:
        left_out.append(_("The first %(shown)s of %(all)s projects.") % {"shown": found.shown, "all": found.projects})
    if not found.is_whole:
        left_out.append(_("The first %s rests of it.") % len(found.rests))
    return " ".join(left_out)


def _rests_table(found: DayOfRests, filters: Filters) -> Table:
    columns = [
        Column("project", _("Project")),
        Column("model", _("Model")),
        Column("why", _("Why")),
        Column("limit", _("Limit"), "number"),
        Column("since", _("Since")),
        Column("until", _("Until")),
    ]
    rows = [_rest_row(event, filters) for event in found.rests]
    empty = _("Nothing rested on this day.")
    return Table("rests", _("Rests, those first that ran out first"), columns, rows, empty, _more(found))


def _rest_row(event: ExhaustionEvent, filters: Filters) -> tuple[object, ...]:
    return (
        project_link(event.project_id, project_name(event), filters),
        rested_model(event, filters),
        event.get_window_display(),
        event.limit,
        event.since,
        event.until or _("somebody acts"),
    )


def _models_table(models: list[Spending], found: DayOfRests, day: QuotaDay, filters: Filters) -> Table:
    columns = [
        Column("model", _("Model")),
        Column("projects", _("Projects that ran out"), "number"),
        Column("median", _("Median time")),
        Column("needed", _("More projects needed"), "number"),
    ]
    rows = [(model_link(row.model_name, filters), row.projects, _time(row.share, day), row.needed) for row in models]
    timeless = sum(one.share is None for one in found.spent)
    note = _("Imported without a time, and so not reckoned with: %s.") % timeless if timeless else ""
    return Table("models", _("A day's quota, by model"), columns, rows, _("No project ran out of a day's quota."), note)
