"""Charts: what Chart.js draws of a table that stands below it."""

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
    """kind: "bar" or "line". labels: along the bottom. series: name, color of pages.css ("--ok"), values."""

    name: str
    label: str
    labels: Sequence[str]
    series: Sequence[tuple[str, str, Sequence[int | float | None]]]
    kind: str = "bar"
    is_stacked: bool = True

    @property
    def id(self) -> str:
        return f"chart-{self.name}"

    @property
    def data(self) -> dict[str, Any]:
        """What pages.js gives to Chart.js."""
        series = [{"label": str(name), "color": color, "data": values} for name, color, values in self.series]
        return {"kind": self.kind, "stacked": self.is_stacked, "labels": self.labels, "series": series}


def slot_label(period: Period, slots: Sequence[datetime | date]) -> str:
    """Return what slots of a period are: its hours, quota days, or weeks."""
    if isinstance(slots[0], datetime):
        return _("Hour")
    return _("Quota day") if period.slot_days == 1 else _("Week from")


def slot_name(begin: datetime | date) -> str:
    """Return an hour or a day as charts name it."""
    if isinstance(begin, datetime):
        return date_format(localtime(begin), "H:i")
    return date_format(begin, "MONTH_DAY_FORMAT")
