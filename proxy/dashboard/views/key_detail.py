"""A key: its state, its usage and its errors."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from proxy.dashboard.parts import heatmaps
from proxy.dashboard.parts.filters import Filters, read_filters
from proxy.dashboard.parts.links import exhausted_model, model_link
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Cell, Column, Table, token_columns
from proxy.dashboard.reports import keys as report
from proxy.dashboard.reports import today
from proxy.dashboard.reports.period import Period
from proxy.dashboard.views.key_list import state_of
from proxy.dashboard.views.request_log import SHAPES
from proxy.models import ApiKey, LoggedRequest, Outcome, database_now


@dashboard_page
def key_detail(request: HttpRequest, key_id: int) -> HttpResponse:
    """Show a key. Deleted keys keep their history and their page."""
    moment = database_now()
    shown = get_object_or_404(ApiKey.objects.select_related("project"), pk=key_id)
    filters = read_filters(request, moment)
    model_name = filters.period.model_name
    day = today(moment)
    by_day = report.answers_by_day([key_id], heatmaps.first_day(day), day, model_name)[key_id]
    last_days = Period.ending(moment, "28d", settings.QUOTA_ZONE)
    by_hour = report.answers_by_hour(key_id, last_days)
    return answer(
        request,
        "key",
        shown.label,
        filters=filters,
        tables=[
            _models_table(key_id, filters),
            _exhaustion_table(key_id, filters),
            _errors_table(key_id, filters),
            _days_table(by_day),
            _hours_table(by_hour),
        ],
        moment=moment,
        key=shown,
        state=state_of(shown, report.events_of([shown.project_id], moment).get(shown.project_id, [])),
        its_project=reverse("proxy:keys") + filters.query(project=shown.project_id, key=""),
        its_log=reverse("proxy:requests") + filters.query(key=key_id, project=""),
        calendar=heatmaps.calendar(
            "days",
            _("Answers by quota day, 26 weeks"),
            by_day,
            day,
            _("Only %s.") % model_name if model_name else "",
        ),
        hours=_hours_map(by_hour, last_days, moment, _("All models.") if model_name else ""),
    )


def _hours_map(
    answers: Mapping[tuple[date, int], int], period: Period, moment: datetime, note: str
) -> heatmaps.HeatMap:
    days = [period.first + timedelta(days=number) for number in range(period.days)]
    hours = {day: report.hours_of(day, period) for day in days}
    now = localtime(moment, period.zone)

    def has_value(day: date, hour: int) -> bool:
        return hour in hours[day] and (day, hour) <= (now.date(), now.hour)

    return heatmaps.by_hour("hours", _("Answers by hour, 28 days"), answers, days, has_value=has_value, note=note)


def _days_table(answers: Mapping[date, int]) -> Table:
    columns = [Column("day", _("Quota day")), Column("answers", _("Answers"), "number")]
    return Table("days", _("Answers by quota day, 26 weeks"), columns, sorted(answers.items()))


def _hours_table(answers: Mapping[tuple[date, int], int]) -> Table:
    columns = [Column("day", _("Quota day")), Column("hour", _("Hour")), Column("answers", _("Answers"), "number")]
    rows = [(day, hour, number) for (day, hour), number in sorted(answers.items())]
    return Table("hours", _("Answers by hour, 28 days"), columns, rows)


def _models_table(key_id: int, filters: Filters) -> Table:
    columns = [
        Column("model", _("Model")),
        Column("answers", _("Answers"), "number"),
        Column("errors", _("Errors among them"), "number"),
        Column("refusals", _("Refusals"), "number"),
        *token_columns(),
    ]
    rows = [(model_link(use.model_name, filters), *use[1:]) for use in report.use_by_model(key_id, filters.period)]
    words = {"first": filters.period.first, "last": filters.period.last}
    note = _("Quota days from %(first)s to %(last)s.") % words
    empty = _("No usage on the quota days from %(first)s to %(last)s.") % words
    return Table("models", _("By model"), columns, rows, empty, note)


def _exhaustion_table(key_id: int, filters: Filters) -> Table:
    columns = [
        Column("model", _("Model")),
        Column("why", _("Why")),
        Column("limit", _("Limit"), "number"),
        Column("since", _("Since")),
        Column("until", _("Until")),
    ]
    rows = [
        (
            exhausted_model(event, filters),
            event.get_window_display(),
            event.limit,
            event.since,
            event.until or _("revived manually"),
        )
        for event in report.exhaustion_of(key_id)
    ]
    note = _("The latest 50. Quotas belong to projects: a limit applies to all keys of the project.")
    empty = _("Google has never refused a request with this key.")
    return Table("exhaustion", _("Exhaustion"), columns, rows, empty, note)


def _errors_table(key_id: int, filters: Filters) -> Table:
    columns = [
        Column("began", _("Time"), "second"),
        Column("outcome", _("Outcome")),
        Column("status", _("Status"), "number"),
        Column("model", _("Model")),
        Column("method", _("Method")),
        Column("said", _("Answer to this key")),
        Column("request_id", _("Request ID")),
    ]
    rows = [
        (
            request.began,
            f"{SHAPES[Outcome(request.outcome)]} {request.get_outcome_display()}",
            request.status,
            model_link(request.model_name, filters),
            f"{request.method} {request.action}".strip(),
            ", ".join(str(status or _("no answer")) for tried, status in request.attempts if tried == key_id),
            _in_log(request, filters),
        )
        for request in report.errors_of(key_id)
    ]
    empty = _("The log has no failed or refused request that used this key last.")
    return Table("errors", _("Latest errors"), columns, rows, empty, _("The latest 20."))


def _in_log(request: LoggedRequest, filters: Filters) -> Cell:
    no_filter = {"key": "", "project": "", "model": ""}
    return Cell(request.request_id, href=reverse("proxy:requests") + filters.query(q=request.request_id, **no_filter))
