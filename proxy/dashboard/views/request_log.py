"""The request log, updated live."""

import math
from collections.abc import Sequence

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _

from proxy.dashboard.parts.filters import Filters, NumberField, read_filters
from proxy.dashboard.parts.links import key_address, model_link
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Cell, Column, Table, token_columns
from proxy.dashboard.reports import requests as log
from proxy.models import LoggedRequest, Outcome, database_now

SHAPES = {Outcome.AT_ONCE: "●", Outcome.AFTER_FAIL_OVER: "◑", Outcome.REFUSED: "▲", Outcome.FAILED: "✕"}


class LogForm(forms.Form):
    """What the address can hold besides the filters."""

    outcome = forms.TypedChoiceField(choices=Outcome.choices, coerce=int, required=False)
    # The first characters of a request's id.
    q = forms.CharField(required=False)
    # The id of the last row on the previous page.
    before = NumberField()
    # The id of the newest row that the page has.
    after = NumberField()


@dashboard_page
def request_log(request: HttpRequest) -> HttpResponse:
    """Show a page of the log. With `?after=`, return only newer rows, for the script that adds them at the top."""
    moment = database_now()
    filters = read_filters(request, moment)
    form = LogForm(request.GET)
    form.is_valid()
    outcome = form.cleaned_data.get("outcome") or 0
    if "after" in request.GET:
        after = form.cleaned_data.get("after") or 0
        rows = log.arrived(filters.period, after, outcome=outcome)
        table = _table(rows, filters)
        newest = rows[0].pk if rows else after
        response = render(request, "proxy/_rows.html", {"table": table})
        response.headers["X-Newest"] = str(newest)
        return response
    newest = log.newest_id()
    searched = form.cleaned_data.get("q", "")[:128]
    before = form.cleaned_data.get("before") or 0
    rows = log.logged(filters.period, outcome=outcome, request_id=searched, before=before)
    shown = rows[: log.PAGE]
    also = {name: value for name, value in (("outcome", outcome or ""), ("q", searched)) if value}
    return answer(
        request,
        "requests",
        _("Requests"),
        filters=filters,
        tables=[_table(shown, filters)],
        moment=moment,
        outcomes=[(value, label, SHAPES[Outcome(value)]) for value, label in Outcome.choices],
        outcome=outcome,
        searched=searched,
        newest=newest,
        is_live=not searched and not before,
        older=filters.query(**also, before=shown[-1].pk) if len(rows) > log.PAGE else "",
        newer=filters.query(**also) if before else "",
        has_log=settings.REQUEST_LOG_DAYS > 0,
        days=settings.REQUEST_LOG_DAYS,
        whole_days=math.ceil(settings.REQUEST_LOG_DAYS),
    )


def _table(rows: Sequence[LoggedRequest], filters: Filters) -> Table:
    columns = [
        Column("began", _("Time"), "second"),
        Column("outcome", _("Outcome")),
        Column("status", _("Status"), "number"),
        Column("model", _("Model")),
        Column("method", _("Method")),
        Column("keys", _("Attempts"), "words"),
        Column("waited", _("Waited"), "ms"),
        Column("first_byte", _("First byte"), "ms"),
        Column("duration", _("Duration"), "ms"),
        *token_columns(),
        Column("request_id", _("Request ID")),
    ]
    labels = log.key_labels(rows)
    body = [
        (
            row.began,
            Cell(f"{SHAPES[Outcome(row.outcome)]} {row.get_outcome_display()}"),
            row.status,
            model_link(row.model_name, filters),
            f"{row.method} {row.action}".strip(),
            _attempts(row, labels, filters),
            row.waited_ms or None,
            row.first_byte_ms,
            row.duration_ms,
            row.prompt_tokens,
            row.output_tokens,
            row.thinking_tokens,
            row.cached_tokens,
            row.request_id,
        )
        for row in rows
    ]
    if settings.REQUEST_LOG_DAYS:
        empty = _("No request matches in this period. New requests appear here by themselves.")
    else:
        empty = _("The log is turned off, because REQUEST_LOG_DAYS is 0.")
    return Table("requests", _("Requests, newest first"), columns, body, empty)


def _attempts(row: LoggedRequest, labels: dict[int, str], filters: Filters) -> Cell:
    """Return the key and the status of each attempt, in order."""
    several = [
        (labels.get(key_id, f"key {key_id}"), status or _("no answer"), key_id) for key_id, status in row.attempts
    ]
    words = ", ".join(f"{label}: {status}" for label, status, _id in several)
    links = format_html_join(
        ", ",
        '<a href="{}">{}</a> {}',
        ((key_address(key_id, filters), label, status) for label, status, key_id in several),
    )
    return Cell(words, html=links or format_html("–"))
