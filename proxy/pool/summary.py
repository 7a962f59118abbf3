"""Messages about a list of keys, for the commands, the startup and the admin. They contain no secret."""

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from proxy.pool.key_file import KeyLines

_MOST_NUMBERS = 20


def summary(lines: KeyLines, new: int, known: int, *, is_done: bool = True) -> str:
    """Return how many keys there are of each kind: "4 added, 0 known, 1 repeated, 1 malformed (line 6)."

    is_done: False for a preview.
    """
    parts = [
        (_("%(count)d added") if is_done else _("%(count)d would be added")) % {"count": new},
        _("%(count)d known") % {"count": known},
        *([_("%(count)d repeated") % {"count": lines.repeated}] if lines.repeated else []),
        _("%(count)d malformed") % {"count": len(lines.malformed)}
        + (f" ({_line_numbers(lines.malformed)})" if lines.malformed else ""),
    ]
    return _("%(parts)s.") % {"parts": _(", ").join(parts)}


def malformed_warning(lines: KeyLines) -> str:
    """Return a sentence that names the malformed lines, "" when there are none."""
    if not lines.malformed:
        return ""
    text = (
        _("Incomplete keys were skipped (%(lines)s). All other keys were imported.")
        if lines.found
        else _("No complete key found (%(lines)s). Nothing was imported.")
    )
    return text % {"lines": _line_numbers(lines.malformed)}


def odd_warning(lines: KeyLines) -> str:
    """Return a sentence that names the lines of odd keys, "" when there are none."""
    if not lines.odd:
        return ""
    return _(
        "Added, although they do not look like AIza… or AQ.…: %(lines)s. "
        "Run `manage.py checkkeys` to check them with Google."
    ) % {"lines": _line_numbers(lines.odd)}


def _line_numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    text = ngettext("line %(numbers)s", "lines %(numbers)s", len(numbers)) % {"numbers": shown}
    more = len(numbers) - _MOST_NUMBERS
    return _("%(lines)s and %(count)d more") % {"lines": text, "count": more} if more > 0 else text
