"""Exhaustion: which quotas were exceeded on a quota day, when, and how many more projects would have been enough."""

from datetime import date, timedelta

from django import forms
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from proxy.dashboard.parts.filters import Filters, problems_in, read_filters
from proxy.dashboard.parts.formats import model_name
from proxy.dashboard.parts.lanes import grid, hours, lanes, legend, percent, project_name
from proxy.dashboard.parts.links import exhausted_model, model_link, project_link
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Column, Figure, Table
from proxy.dashboard.reports import exhaustion as report
from proxy.dashboard.reports import today
from proxy.dashboard.reports.exhaustion import DayOfExhaustion, QuotaDay, Spending
from proxy.models import ExhaustionEvent, database_now

_ONE_DAY = timedelta(days=1)


class DayForm(forms.Form):
    """What the address can hold besides the filters."""

    day = forms.DateField(
        required=False,
        input_formats=["%Y-%m-%d"],
        error_messages={"invalid": gettext_lazy("Write the day as 2026-11-25. Showing today.")},
        validators=[
            check(limit, gettext_lazy("There is no data for that day. Showing today."))
            for check, limit in ((MinValueValidator, date(2000, 1, 1)), (MaxValueValidator, date(2200, 1, 1)))
        ],
    )


@dashboard_page
def exhaustion(request: HttpRequest) -> HttpResponse:
    """Show the exhaustion events on the day of `?day=`."""
    moment = database_now()
    filters = read_filters(request, moment)
    form = DayForm(request.GET)
    form.is_valid()
    shown = form.cleaned_data.get("day") or today(moment)
    day = QuotaDay.of(shown, settings.QUOTA_ZONE)
    found = report.day_of_exhaustion(day, filters.period)
    models = report.spending(found.spent)
    lines = hours(day, settings.QUOTA_ZONE)
    return answer(
        request,
        "exhaustion",
        _("Exhaustion"),
        filters=filters,
        tables=[_events_table(found, filters), _models_table(models, found, day, filters)],
        moment=moment,
        figures=_figures(found, models, day),
        lanes=lanes(found.events, day, reverse("proxy:keys") + filters.query(project="") + "&project="),
        hours=lines,
        grid=grid(lines, percent(day.share(moment)) if day.start <= moment < day.end else ""),
        shapes=legend(),
        more=_more(found),
        shown_day=shown,
        problem=" ".join(problems_in(form)),
        previous=(shown - _ONE_DAY, filters.query(day=shown - _ONE_DAY)),
        next=(shown + _ONE_DAY, filters.query(day=shown + _ONE_DAY)),
        without=[(name, f"{address}&day={shown}") for name, address in filters.without],
    )


def _figures(found: DayOfExhaustion, models: list[Spending], day: QuotaDay) -> list[Figure]:
    share = report.median_of(one.share for one in found.spent)
    most = max(models, key=lambda row: row.needed, default=None)
    return [
        Figure(_("projects exhausted"), len({one.project_id for one in found.spent}), note=_("for the day")),
        Figure(_("median time of exhaustion"), _time(share, day), note=_("over all models")),
        Figure(
            _("more projects needed"),
            most.needed if most else 0,
            note=_("each with a key, for %s") % (model_name(most.model_name)) if most and most.needed else "",
        ),
        Figure(_("projects limited"), found.projects, note=_("for any reason, by the minute or by the day")),
    ]


def _time(share: float | None, day: QuotaDay) -> str:
    return "" if share is None else date_format(localtime(day.moment(share)), "H:i")


def _more(found: DayOfExhaustion) -> str:
    """Return what is left out, "" when nothing is."""
    left_out = []
    if found.shown < found.projects:
        left_out.append(_("The first %(shown)s of %(all)s projects.") % {"shown": found.shown, "all": found.projects})
    if not found.is_complete:
        left_out.append(_("The first %s events of this project.") % len(found.events))
    return " ".join(left_out)


def _events_table(found: DayOfExhaustion, filters: Filters) -> Table:
    columns = [
        Column("project", _("Project")),
        Column("model", _("Model")),
        Column("why", _("Why")),
        Column("limit", _("Limit"), "number"),
        Column("since", _("Since")),
        Column("until", _("Until")),
    ]
    rows = [_event_row(event, filters) for event in found.events]
    empty = _("No project was rate-limited or exhausted on this day.")
    return Table("events", _("Exhaustion events, by project"), columns, rows, empty, _more(found))


def _event_row(event: ExhaustionEvent, filters: Filters) -> tuple[object, ...]:
    return (
        project_link(event.project_id, project_name(event), filters),
        exhausted_model(event, filters),
        event.get_window_display(),
        event.limit,
        event.since,
        event.until or _("revived manually"),
    )


def _models_table(models: list[Spending], found: DayOfExhaustion, day: QuotaDay, filters: Filters) -> Table:
    columns = [
        Column("model", _("Model")),
        Column("projects", _("Projects exhausted"), "number"),
        Column("median", _("Median time")),
        Column("needed", _("More projects needed"), "number"),
    ]
    rows = [(model_link(row.model_name, filters), row.projects, _time(row.share, day), row.needed) for row in models]
    timeless = sum(one.share is None for one in found.spent)
    note = _("Not included, because they were imported without a time: %s.") % timeless if timeless else ""
    empty = _("No project used up a daily quota.")
    return Table("models", _("Daily quotas, by model"), columns, rows, empty, note)
