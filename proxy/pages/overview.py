"""The overview: what is left today, who rests, how requests ended, and whether it lasts until the reset."""

from datetime import UTC, date, datetime
from typing import NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from proxy import reports
from proxy.checks import check_sqlite
from proxy.models import ExhaustionEvent
from proxy.pages.charts import Chart
from proxy.pages.filters import Filters, read_filters
from proxy.pages.page import answer, dashboard_page
from proxy.pages.tables import Cell, Column, Table
from proxy.reports import remaining, traffic
from proxy.reports.pool import PoolState
from proxy.reports.traffic import Bar

_FEW_KEYS = 0.2  # of the usable ones


class Figure(NamedTuple):
    """A number at the top of the page. kind: as in a table; note: below it."""

    label: str
    value: object
    kind: str = ""
    note: str = ""
    href: str = ""


@dashboard_page
def overview(request: HttpRequest) -> HttpResponse:
    """Show the pool at a glance."""
    moment = datetime.now(UTC)
    filters = read_filters(request, moment)
    period = filters.period
    bars = traffic.bars(period)
    rows = remaining.remaining(moment, period)
    pool = reports.pool_state(moment)
    return answer(
        request,
        "overview",
        _("Overview"),
        filters=filters,
        tables=[
            _traffic_table(bars, filters),
            _models_table(filters),
            _left_table(rows, moment, filters),
            _running_out_table(moment, filters),
            _resting_table(moment, filters),
        ],
        moment=moment,
        figures=_figures(pool, bars, rows, filters),
        warnings=_warnings(pool),
        chart=_chart(bars),
    )


def _figures(pool: PoolState, bars: list[Bar], rows: list[remaining.Remaining], filters: Filters) -> list[Figure]:
    now, before = traffic.totals(bars), traffic.totals(traffic.bars(filters.period.before()))
    known = [row for row in rows if row.known]
    left = sum(row.left for row in known)
    p50, p95 = traffic.first_bytes(filters.period)
    keys = reverse("proxy:keys") + filters.here
    return [
        Figure(
            _("requests left today"),
            left if known else None,
            note=_("where limits are known: %(models)s of %(all)s models") % {"models": len(known), "all": len(rows)},
        ),
        Figure(_("usable keys"), pool.usable, href=f"{keys}&state=usable"),
        Figure(_("of these resting"), pool.resting, href=f"{keys}&state=resting"),
        Figure(_("bad keys"), pool.bad, href=f"{keys}&state=bad"),
        Figure(_("requests"), now.requests, note=_against(now.requests, before.requests)),
        Figure(_("failed"), now.failed, note=_against(now.failed, before.failed)),
        Figure(_("first byte, median"), p50, "ms", _("95th percentile: %s") % (f"{p95} ms" if p95 else "–")),
        Figure(_("tokens"), now.tokens, note=_against(now.tokens, before.tokens)),
    ]


def _against(now: int, before: int) -> str:
    """Return how a number stands to that of the period before."""
    if not before:
        return _("none in the period before")
    return _("%(change)+.0f %% against the period before") % {"change": (now / before - 1) * 100}


def _warnings(pool: PoolState) -> list[str]:
    warnings = list(reports.obstacles())
    if settings.PLACEHOLDER_TOKEN == settings.DEFAULT_TOKEN:
        warnings.append(
            _(
                "Clients still show the well-known default token. Set PLACEHOLDER_TOKEN in .env, "
                "so that nobody else can use these keys."
            )
        )
    warnings += [str(warning.msg) for warning in check_sqlite(None)]
    if pool.usable and pool.usable - pool.resting <= pool.usable * _FEW_KEYS:
        warnings.append(
            _("Few keys are left: %(open)s of %(usable)s do not rest.")
            % {"open": pool.usable - pool.resting, "usable": pool.usable}
        )
    return warnings


def _chart(bars: list[Bar]) -> Chart:
    return Chart(
        "traffic",
        _("Requests over time, by how they ended; the table below says the same"),
        [slot_name(bar.begin) for bar in bars],
        [
            (_("answered at once"), "--ok", [bar.at_once for bar in bars]),
            (_("after fail-over"), "--fail-over", [bar.after_fail_over for bar in bars]),
            (_("refused"), "--refused", [bar.refused for bar in bars]),
            (_("failed"), "--failed", [bar.failed for bar in bars]),
        ],
    )


def slot_name(begin: datetime | date) -> str:
    """Return an hour or a day as charts name it."""
    if isinstance(begin, datetime):
        return date_format(localtime(begin), "H:i")
    return date_format(begin, "MONTH_DAY_FORMAT")


def _traffic_table(bars: list[Bar], filters: Filters) -> Table:
    columns = [
        Column("begin", _("Hour") if filters.period.is_hourly else _("Quota day")),
        Column("at_once", _("Answered at once"), "number"),
        Column("after_fail_over", _("After fail-over"), "number"),
        Column("refused", _("Refused"), "number"),
        Column("failed", _("Failed"), "number"),
        Column("tokens", _("Tokens"), "number"),
    ]
    note = _("Tries of these keys; refused: Google's 429.") if filters.period.has_keys else ""
    return Table("traffic", _("Requests over time"), columns, bars, note=note)


def _models_table(filters: Filters) -> Table:
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
            Cell(row.model_name, href=reverse("proxy:models") + filters.query(model=row.model_name)),
            row.requests,
            row.failed,
            row.refused,
            row.prompt_tokens + row.output_tokens + row.thinking_tokens,
            row.p50,
        )
        for row in traffic.models(filters.period)
    ]
    empty = _("No requests in this period. Point a client at this address: the README shows how.")
    return Table("models", _("Models"), columns, rows, empty)


def _left_table(rows: list[remaining.Remaining], moment: datetime, filters: Filters) -> Table:
    columns = [
        Column("model", _("Model")),
        Column("left", _("Left"), "number"),
        Column("used", _("Used"), "number"),
        Column("limit", _("Limit"), "number"),
        Column("projects", _("Projects with a known limit"), "number"),
        Column("until", _("At this rate")),
    ]
    shown = []
    for row in rows:
        end = remaining.rate_lasts_until(row, moment)
        lasts = _("used up at %s") % date_format(localtime(end), "H:i") if end else _("lasts until the reset")
        shown.append(
            (
                Cell(row.model_name, href=reverse("proxy:models") + filters.query(model=row.model_name)),
                row.left if row.known else None,
                row.used if row.known else None,
                row.limit if row.known else None,
                f"{row.known} / {row.all}",
                lasts if row.known == row.all else _("not known"),
            )
        )
    return Table("left", _("Left today"), columns, shown, _("No model was asked for yet."))


def _running_out_table(moment: datetime, filters: Filters) -> Table:
    columns = [
        Column("project", _("Project")),
        Column("model", _("Model")),
        Column("used", _("Used"), "number"),
        Column("limit", _("Limit"), "number"),
        Column("moment", _("Used up at")),
    ]
    rows = [
        (
            Cell(str(row.project), href=reverse("proxy:keys") + filters.query(project=row.project.pk)),
            row.model_name,
            row.used,
            row.limit,
            row.moment,
        )
        for row in remaining.running_out(moment, filters.period)
    ]
    return Table(
        "running_out",
        _("Run out first, at today's rate"),
        columns,
        rows,
        _("No project runs out before the reset, as far as limits are known."),
    )


def _resting_table(moment: datetime, filters: Filters) -> Table:
    columns = [
        Column("key", _("Key")),
        Column("project", _("Project")),
        Column("model", _("Model")),
        Column("why", _("Why")),
        Column("since", _("Since")),
        Column("until", _("Until")),
    ]
    events = reports.exhaustion_in_force(moment, filters.period)
    rows = [_resting_row(event, filters) for event in events[:100]]
    note = _("The first 100 of %s.") % len(events) if len(events) > 100 else ""
    return Table(
        "resting", _("Exhausted now"), columns, rows, _("Nothing: every usable key may be asked for every model."), note
    )


def _resting_row(event: ExhaustionEvent, filters: Filters) -> tuple[object, ...]:
    limit = _("limit %s") % event.limit if event.limit is not None else ""
    return (
        Cell(event.key.label, href=reverse("proxy:key", args=[event.key_id]) + filters.query(key="")),
        Cell(event.project.name, href=reverse("proxy:exhaustion") + filters.query(project=event.project_id)),
        event.model_name or _("all models"),
        Cell(event.get_window_display(), note=limit),
        event.since,
        event.until or _("somebody acts"),
    )
