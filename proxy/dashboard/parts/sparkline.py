"""A small chart of the last days: an SVG, and a sentence for people who cannot see it."""

from collections.abc import Sequence
from datetime import date

from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

_HEIGHT = 20
_STEP = 4  # a bar and the gap after it


def sparkline(numbers: Sequence[int], days: Sequence[date]) -> SafeString:
    """Return a bar for each day, scaled to the highest. numbers: at least one, none negative."""
    most = max(numbers)
    heights = [-(-number * _HEIGHT // most) if number else 0 for number in numbers]
    bars = "".join(
        f"M{x * _STEP} {_HEIGHT}v-{height}h{_STEP - 1}v{height}z" for x, height in enumerate(heights) if height
    )
    words = {"sum": sum(numbers), "most": most, "day": date_format(days[numbers.index(most)], "MONTH_DAY_FORMAT")}
    said = _("%(sum)s answers in 28 days, most on %(day)s: %(most)s") % words if most else _("no answers in 28 days")
    return format_html(
        '<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="{said}"><title>{said}</title><path d="{bars}"/></svg>',
        width=len(numbers) * _STEP,
        height=_HEIGHT,
        said=said,
        bars=bars,
    )
