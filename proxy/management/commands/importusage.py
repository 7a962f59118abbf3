"""`manage.py importusage key_usage.txt`: import the counts of the old script."""

from dataclasses import replace
from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.dashboard.reports import today
from proxy.management.base import PoolCommand
from proxy.management.files import read_text
from proxy.models import database_now
from proxy.pool.usage_file import BadUsageFile, import_usage, parse_usage


class Command(PoolCommand):
    help = gettext_noop("Import the counts and exhausted keys in FILE (a key_usage.txt). Running it twice is safe.")

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("the file, or - for standard input"))
        parser.add_argument(
            "--day", help=_("the quota day to count it under, such as 2026-11-23 (default: the date in the file)")
        )
        parser.add_argument(
            "--dry-run", action="store_true", help=_("show what would happen, without changing anything")
        )

    def handle(self, *args: Any, file: str, day: str | None, dry_run: bool, **options: Any) -> None:
        moment = database_now()
        try:
            usage = parse_usage(read_text(file))
            usage = replace(usage, day=date.fromisoformat(day)) if day else usage
        except BadUsageFile as exc:
            raise CommandError(
                _("%(file)s is not a valid key_usage.txt: %(error)s.") % {"file": file, "error": exc}
            ) from None
        except ValueError:
            raise CommandError(_("--day %(day)s is not a date like 2026-11-23.") % {"day": day}) from None
        if usage.day > today(moment):
            raise CommandError(
                _(
                    "%(file)s is for %(day)s, but the current quota day is %(today)s. "
                    "To count it under the current day, add --day %(today)s."
                )
                % {"file": file, "day": usage.day, "today": today(moment)}
            )
        unknown = 0 if dry_run else import_usage(usage, moment)
        counts = _("%(day)s: answers %(answers)d, keys used %(used)d, keys exhausted %(exhausted)d") % {
            "day": usage.day,
            "answers": usage.answers,
            "used": len(usage.counts),
            "exhausted": len(usage.exhausted),
        }
        message = _("%(counts)s. Nothing was changed.") if dry_run else _("Imported %(counts)s.")
        self.stdout.write(message % {"counts": counts})
        if unknown:
            message = _(
                "Keys that were not in the pool: %(count)d. They were added but are disabled; enable them in the admin."
            )
            self.stdout.write(message % {"count": unknown})
