"""What is said of a list of keys, by the commands, at the start and in the admin alike. No secret is in it."""

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from proxy.pool.key_file import KeyLines

_MOST_NUMBERS = 20


def summary(lines: KeyLines, new: int, known: int, *, is_done: bool = True) -> str:
    """Return how many keys are what: "4 added, 0 known, 1 repeated, 1 malformed (line 6)."

    is_done: False where nothing was written yet.
    """
    told = [
        (_("%(count)d added") if is_done else _("%(count)d would be added")) % {"count": new},
        _("%(count)d known") % {"count": known},
        *([_("%(count)d repeated") % {"count": lines.repeated}] if lines.repeated else []),
        _("%(count)d malformed") % {"count": len(lines.malformed)}
        + (f" ({_line_numbers(lines.malformed)})" if lines.malformed else ""),
    ]
    return _("%(told)s.") % {"told": _(", ").join(told)}


def malformed_told(lines: KeyLines) -> str:
    """Return a sentence that names the malformed lines, "" when there are none."""
    if not lines.malformed:
        return ""
    told = (
        _("What is not a complete key is left out (%(lines)s); all other keys are imported.")
        if lines.found
        else _("There is no complete key here (%(lines)s); nothing is imported.")
    )
    return told % {"lines": _line_numbers(lines.malformed)}


def odd_told(lines: KeyLines) -> str:
    """Return a warning that names the lines of odd keys, "" when there are none."""
    if not lines.odd:
        return ""
    return _(
        "Taken, although neither like AIza… nor like AQ.…: %(lines)s. "
        "`manage.py checkkeys` tells whether Google knows them."
    ) % {"lines": _line_numbers(lines.odd)}


def _line_numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    told = ngettext("line %(numbers)s", "lines %(numbers)s", len(numbers)) % {"numbers": shown}
    more = len(numbers) - _MOST_NUMBERS
    return _("%(told)s and %(count)d more") % {"told": told, "count": more} if more > 0 else told
