"""Models: requests over time, totals and known limits of each."""

from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from proxy.dashboard.parts.charts import Chart, slot_label, slot_name
from proxy.dashboard.parts.filters import Filters, read_filters
from proxy.dashboard.parts.formats import model_name
from proxy.dashboard.parts.links import model_link
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Column, Table, token_columns
from proxy.dashboard.reports import by_model, traffic
from proxy.dashboard.reports.by_model import MOST_MODELS, ModelBars
from proxy.dashboard.reports.traffic import Sums
from proxy.models import database_now


@dashboard_page
def model_list(request: HttpRequest) -> HttpResponse:
    """Show the models used in the chosen period."""
    moment = database_now()
    filters = read_filters(request, moment)
    sums = traffic.sums(filters.period)
    bars = by_model.bars(filters.period, sums)
    return answer(
        request,
        "models",
        _("Models"),
        filters=filters,
        tables=[_models_table(sums, filters), _limits_table(filters), _bars_table(bars, filters)],
        moment=moment,
        chart=_chart(bars),
    )


def _models_table(sums: Iterable[Sums], filters: Filters) -> Table:
    columns = [
        Column("model", _("Model")),
        Column("requests", _("Requests"), "number"),
        Column("failed", _("Failed"), "number"),
        Column("refused", _("Refused"), "number"),
        *token_columns(),
        Column("p50", _("First byte, median"), "ms"),
        Column("p95", _("First byte, 95th percentile"), "ms"),
    ]
    found = traffic.models(sums, traffic.first_byte_steps(filters.period))
    rows = [(model_link(row.model_name, filters), *row[1:]) for row in found]
    empty = _("No requests in this period. The README shows how to point a client at this address.")
    return Table("models", _("Models"), columns, rows, empty, filters.about_models)


def _limits_table(filters: Filters) -> Table:
    words = {
        "requests_per_minute": _("requests per minute"),
        "input_tokens_per_minute": _("input tokens per minute"),
        "requests_per_day": _("requests per day"),
    }
    columns = [
        Column("model", _("Model")),
        Column("limit", _("Limit")),
        Column("lowest", _("Lowest"), "number"),
        Column("highest", _("Highest"), "number"),
        Column("known", _("Projects with a known limit"), "number"),
        Column("projects", _("Projects"), "number"),
    ]
    rows = [
        (model_link(row.model_name, filters), words[row.name], *row[2:])
        for row in by_model.known_limits(filters.period)
        if row.projects
    ]
    empty = _(
        "No limit is known yet. Google reports limits when it refuses a request. You can also set them in the admin."
    )
    note = _(
        "A limit that you set takes precedence over the one reported by Google. Unusable projects are not included."
    )
    return Table("limits", _("Known limits"), columns, rows, empty, note)


def _bars_table(bars: ModelBars, filters: Filters) -> Table:
    columns = [Column("begin", slot_label(filters.period, bars.slots))]
    columns += [Column(name, model_name(name), "number") for name in bars.requests]
    columns.append(Column("others", _("Others"), "number"))
    rows = list(zip(bars.slots, *bars.requests.values(), bars.others, strict=True))
    return Table("bars", _("Requests by model over time"), columns, rows)


def _chart(bars: ModelBars) -> Chart:
    series = [(model_name(name), f"--model-{n}", row) for n, (name, row) in enumerate(bars.requests.items(), 1)]
    if any(bars.others):
        series.append((_("others"), f"--model-{MOST_MODELS + 1}", bars.others))
    label = _("Requests by model over time. The last table has the numbers.")
    return Chart("models", label, [slot_name(slot) for slot in bars.slots], series)
