"""Charts, drawn by Chart.js. Each shows the numbers of a table on the same page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from proxy.dashboard.reports.period import Period


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart."""

    name: str
    # Describes the chart to people who cannot see it.
    label: str
    # Along the x axis.
    labels: Sequence[str]
    # Of each series: its name, its color in pages.css ("--ok"), its values.
    series: Sequence[tuple[str, str, Sequence[int | float | None]]]
    # "bar" or "line".
    kind: str = "bar"
    is_stacked: bool = True

    @property
    def id(self) -> str:
        return f"chart-{self.name}"

    @property
    def data(self) -> dict[str, Any]:
        """The data that pages.js passes to Chart.js."""
        series = [{"label": str(name), "color": color, "data": values} for name, color, values in self.series]
        return {"kind": self.kind, "stacked": self.is_stacked, "labels": self.labels, "series": series}


def slot_label(period: Period, slots: Sequence[datetime | date]) -> str:
    """Return the heading for slots: hours, quota days, or weeks."""
    if isinstance(slots[0], datetime):
        return _("Hour")
    return _("Quota day") if period.slot_days == 1 else _("Week from")


def slot_name(begin: datetime | date) -> str:
    """Return the name of an hour or a day in charts."""
    if isinstance(begin, datetime):
        return date_format(localtime(begin), "H:i")
    return date_format(begin, "MONTH_DAY_FORMAT")
