"""The tables of the overview."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from proxy.dashboard import reports
from proxy.dashboard.parts.charts import slot_label
from proxy.dashboard.parts.filters import Filters
from proxy.dashboard.parts.links import exhausted_model, key_address, model_link, project_link
from proxy.dashboard.parts.tables import Cell, Column, Table
from proxy.dashboard.reports import remaining, traffic
from proxy.dashboard.reports.remaining import Remaining
from proxy.dashboard.reports.traffic import Bar, Sums
from proxy.models import ExhaustionEvent

_MOST_SHOWN = 100


def traffic_table(bars: list[Bar], filters: Filters) -> Table:
    """Return the numbers of the chart."""
    columns = [
        Column("begin", slot_label(filters.period, [bar.begin for bar in bars])),
        Column("at_once", _("Answered at once"), "number"),
        Column("after_fail_over", _("After fail-over"), "number"),
        Column("refused", _("Refused"), "number"),
        Column("failed", _("Failed"), "number"),
        Column("tokens", _("Tokens"), "number"),
    ]
    note = _("Attempts with these keys. Refused means a 429 from Google.") if filters.period.has_keys else ""
    return Table("traffic", _("Requests over time"), columns, bars, note=note)


def models_table(sums: Iterable[Sums], steps: dict[str, Counter[int]], filters: Filters) -> Table:
    """Return the requests for each model, with a link to its page."""
    columns = [
        Column("model", _("Model")),
        Column("requests", _("Requests"), "number"),
        Column("failed", _("Failed"), "number"),
        Column("refused", _("Refused"), "number"),
        Column("tokens", _("Tokens"), "number"),
        Column("p50", _("First byte, median"), "ms"),
    ]
    rows = [
        (
            model_link(row.model_name, filters),
            row.requests,
            row.failed,
            row.refused,
            row.prompt_tokens + row.output_tokens + row.thinking_tokens,
            row.p50,
        )
        for row in traffic.models(sums, steps)
    ]
    empty = _("No requests in this period. The README shows how to point a client at this address.")
    return Table("models", _("Models"), columns, rows, empty, filters.about_models)


def left_table(rows: list[Remaining], moment: datetime, filters: Filters) -> Table:
    """Return what is left of each model today, and how long it lasts."""
    columns = [
        Column("model", _("Model")),
        Column("left", _("Left"), "number"),
        Column("used", _("Used"), "number"),
        Column("limit", _("Limit"), "number"),
        Column("projects", _("Projects with a known limit"), "number"),
        Column("until", _("At this rate")),
    ]
    shown = [
        (
            model_link(row.model_name, filters),
            row.left if row.known else None,
            row.used if row.known else None,
            row.limit if row.known else None,
            f"{row.known} / {row.all}",
            how_long(row, moment) if row.known else _("unknown"),
        )
        for row in rows
    ]
    return Table("left", _("Left today"), columns, shown, _("No model has been used yet."))


def how_long(row: Remaining, moment: datetime) -> str:
    """Return in words how long a model lasts at today's rate."""
    end = remaining.used_up_at(row, moment)
    if end is None:
        return _("lasts until the reset")
    words = _("used up at %s") if row.known == row.all else _("lasts at least until %s")
    return words % date_format(localtime(end), "H:i")


def running_out_table(moment: datetime, filters: Filters) -> Table:
    """Return the projects that run out first at today's rate."""
    columns = [
        Column("project", _("Project")),
        Column("model", _("Model")),
        Column("used", _("Used"), "number"),
        Column("limit", _("Limit"), "number"),
        Column("moment", _("Used up at")),
    ]
    rows = [
        (
            project_link(row.project.pk, str(row.project), filters),
            model_link(row.model_name, filters),
            row.used,
            row.limit,
            row.moment,
        )
        for row in remaining.running_out(moment, filters.period)
    ]
    return Table(
        "running_out",
        _("First to run out, at today's rate"),
        columns,
        rows,
        _("No project with a known limit runs out before the reset."),
    )


def exhausted_table(moment: datetime, filters: Filters) -> Table:
    """Return the exhaustion events in force."""
    columns = [
        Column("key", _("Key")),
        Column("project", _("Project")),
        Column("model", _("Model")),
        Column("why", _("Why")),
        Column("since", _("Since")),
        Column("until", _("Until")),
    ]
    events = reports.exhaustion_in_force(moment, filters.period)
    rows = [_exhausted_row(event, filters) for event in events[:_MOST_SHOWN]]
    note = _("The first 100 of %s.") % len(events) if len(events) > _MOST_SHOWN else ""
    empty = _("Nothing. Every usable key is available for every model.")
    return Table("exhausted", _("Rate-limited or exhausted now"), columns, rows, empty, note)


def _exhausted_row(event: ExhaustionEvent, filters: Filters) -> tuple[object, ...]:
    limit = _("limit %s") % event.limit if event.limit is not None else ""
    return (
        Cell(event.key.label, href=key_address(event.key_id, filters)),
        project_link(event.project_id, str(event.project), filters),
        exhausted_model(event, filters),
        Cell(event.get_window_display(), note=limit),
        event.since,
        event.until or _("revived manually"),
    )
