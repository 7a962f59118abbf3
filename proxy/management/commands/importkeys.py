"""`manage.py importkeys key.txt`: put the keys of a file into the pool."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop, ngettext

from proxy.keyfile import read_keys
from proxy.management.base import PoolCommand
from proxy.management.files import read_text
from proxy.pool import add_keys, count_new


class Command(PoolCommand):
    help = gettext_noop(
        "Put the keys of FILE (one a line, # for comments) into the pool. Running it twice is harmless."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("the file, or - for standard input"))
        parser.add_argument("--dry-run", action="store_true", help=_("say what would happen, and change nothing"))

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        lines = read_keys(read_text(file))
        if dry_run:
            new = count_new(lines.secrets)
            known = len(lines.secrets) - new
        else:
            new, known = add_keys(lines.secrets, timezone.now())
        told = [
            (_("%(count)d would be added") if dry_run else _("%(count)d added")) % {"count": new},
            _("%(count)d known") % {"count": known},
            *([_("%(count)d repeated") % {"count": lines.repeated}] if lines.repeated else []),
            _("%(count)d malformed") % {"count": len(lines.malformed)}
            + (f" ({_line_numbers(lines.malformed)})" if lines.malformed else ""),
        ]
        self.stdout.write(_("%(told)s.") % {"told": _(", ").join(told)})
        if lines.odd:
            self.stderr.write(
                self.style.WARNING(
                    _(
                        "Taken, although neither like AIza… nor like AQ.…: %(lines)s. "
                        "`manage.py checkkeys` tells whether Google knows them."
                    )
                    % {"lines": _line_numbers(lines.odd)}
                )
            )


def _line_numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    told = ngettext("line %(numbers)s", "lines %(numbers)s", len(numbers)) % {"numbers": shown}
    more = len(numbers) - 20
    return _("%(told)s and %(count)d more") % {"told": told, "count": more} if more > 0 else told
