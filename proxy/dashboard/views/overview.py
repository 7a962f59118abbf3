"""The overview: requests left today and how long they last, the state of keys, and how requests ended."""

from collections import Counter
from datetime import datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from proxy.checks import check_sqlite
from proxy.dashboard import reports
from proxy.dashboard.parts.charts import Chart, slot_name
from proxy.dashboard.parts.filters import Filters, read_filters
from proxy.dashboard.parts.formats import shown
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Figure
from proxy.dashboard.reports import remaining, traffic
from proxy.dashboard.reports.pool import PoolState
from proxy.dashboard.reports.remaining import Remaining, used_up_at
from proxy.dashboard.reports.traffic import Bar
from proxy.dashboard.views import overview_tables as tables
from proxy.models import database_now

_FEW_KEYS = 0.2  # of the usable ones


@dashboard_page
def overview(request: HttpRequest) -> HttpResponse:
    """Show the pool at a glance."""
    moment = database_now()
    filters = read_filters(request, moment)
    period = filters.period
    sums = traffic.sums(period)
    bars = traffic.bars(period, sums)
    rows = remaining.remaining(moment, period)
    pool = reports.pool_state(moment)
    steps = traffic.first_byte_steps(period)
    return answer(
        request,
        "overview",
        _("Overview"),
        filters=filters,
        tables=[
            tables.traffic_table(bars, filters),
            tables.models_table(sums, steps, filters),
            tables.left_table(rows, moment, filters),
            tables.running_out_table(moment, filters),
            tables.exhausted_table(moment, filters),
        ],
        moment=moment,
        figures=[_left(rows, moment), *_figures(pool, bars, steps, filters)],
        warnings=_warnings(pool),
        chart=_chart(bars),
    )


def _figures(
    pool: PoolState,
    bars: list[Bar],
    steps: dict[str, Counter[int]],
    filters: Filters,
) -> list[Figure]:
    now, before = traffic.total(bars), traffic.total_of(filters.period.before())
    every_step = sum(steps.values(), Counter())
    p50, p95 = traffic.percentile(every_step, 0.5), traffic.percentile(every_step, 0.95)
    keys = reverse("proxy:keys") + filters.here
    return [
        Figure(_("usable keys"), pool.usable, href=f"{keys}&state=usable"),
        Figure(_("rate-limited for some models"), pool.limited, href=f"{keys}&state=limited"),
        Figure(_("bad keys"), pool.bad, href=f"{keys}&state=bad"),
        Figure(_("requests"), now.requests, note=_against(now.requests, before.requests)),
        Figure(_("failed"), now.failed, note=_against(now.failed, before.failed)),
        Figure(
            _("first byte, median"),
            p50,
            "ms",
            _("measured for the whole pool only")
            if filters.period.has_keys
            else _("95th percentile: %s") % shown(p95, "ms"),
        ),
        Figure(_("tokens"), now.tokens, note=_against(now.tokens, before.tokens)),
    ]


def _left(rows: list[Remaining], moment: datetime) -> Figure:
    """Return what is left of all models, and how long the first one to be used up lasts."""
    known = [row for row in rows if row.known]
    if not known:
        return Figure(_("requests left today"), None, note=_("no limit is known yet"))
    words = {"models": len(known), "all": len(rows)}
    notes = [_("limits known for %(models)s of %(all)s models") % words] if len(known) < len(rows) else []
    ends = [(end, row) for row in known if (end := used_up_at(row, moment))]
    if ends:
        _end, first = min(ends)
        notes.append(f"{first.model_name}: {tables.how_long(first, moment)}")
    else:
        notes.append(_("at today's rate, they last until the reset"))
    return Figure(_("requests left today"), sum(row.left for row in known), note="; ".join(notes))


def _against(now: int, before: int) -> str:
    """Return the change from the previous period, in words."""
    if not before:
        return _("none in the previous period")
    return _("%(change)+.0f %% from the previous period") % {"change": (now / before - 1) * 100}


def _warnings(pool: PoolState) -> list[str]:
    warnings = list(reports.obstacles())
    if settings.PLACEHOLDER_TOKEN == settings.DEFAULT_TOKEN:
        warnings.append(
            _(
                "Clients still use the well-known default token, so anybody who can reach this service can use these "
                "keys. Run `python manage.py newtoken`, then restart."
            )
        )
    warnings += [str(warning.msg) for warning in check_sqlite(None)]
    if pool.usable and pool.usable == pool.limited:
        text = ngettext(
            "The only key is rate-limited for some models.",
            "All %(count)s keys are rate-limited for some models.",
            pool.usable,
        )
        warnings.append(text % {"count": pool.usable})
    elif pool.usable and pool.usable - pool.limited <= pool.usable * _FEW_KEYS:
        words = {"free": pool.usable - pool.limited, "usable": pool.usable}
        warnings.append(_("Only %(free)s of %(usable)s keys are not rate-limited.") % words)
    return warnings


def _chart(bars: list[Bar]) -> Chart:
    return Chart(
        "traffic",
        _("Requests over time by outcome. The table below has the numbers."),
        [slot_name(bar.begin) for bar in bars],
        [
            (_("answered at once"), "--ok", [bar.at_once for bar in bars]),
            (_("after fail-over"), "--fail-over", [bar.after_fail_over for bar in bars]),
            (_("refused"), "--refused", [bar.refused for bar in bars]),
            (_("failed"), "--failed", [bar.failed for bar in bars]),
        ],
    )
