"""`manage.py importusage key_usage.txt`: take over the counts of the script that came before."""

from dataclasses import replace
from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.dashboard.reports import today
from proxy.management.base import PoolCommand
from proxy.management.files import read_text
from proxy.pool.usage_file import BadUsageFile, import_usage, parse_usage


class Command(PoolCommand):
    help = gettext_noop(
        "Add the counts and exhausted keys of FILE (a key_usage.txt) to ours. Running it twice is harmless."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("the file, or - for standard input"))
        parser.add_argument(
            "--day", help=_("count it under this quota day, like 2026-11-23, whatever date the file has")
        )
        parser.add_argument("--dry-run", action="store_true", help=_("say what would happen, and change nothing"))

    def handle(self, *args: Any, file: str, day: str | None, dry_run: bool, **options: Any) -> None:
        moment = timezone.now()
        try:
            usage = parse_usage(read_text(file))
            usage = replace(usage, day=date.fromisoformat(day)) if day else usage
        except BadUsageFile as exc:
            raise CommandError(_("%(file)s is no key_usage.txt: %(error)s.") % {"file": file, "error": exc}) from None
        except ValueError:
            raise CommandError(_("--day %(day)s is no date; write it like 2026-11-23.") % {"day": day}) from None
        if usage.day > today(moment):
            raise CommandError(
                _(
                    "%(file)s is of %(day)s, and the quota day is %(today)s now: "
                    "count it under that day with --day %(today)s."
                )
                % {"file": file, "day": usage.day, "today": today(moment)}
            )
        unknown = 0 if dry_run else import_usage(usage, moment)
        told = _("%(day)s: %(answers)d answers, keys used %(used)d, exhausted %(exhausted)d") % {
            "day": usage.day,
            "answers": usage.answers,
            "used": len(usage.counts),
            "exhausted": len(usage.exhausted),
        }
        ending = _("%(told)s; nothing was changed.") if dry_run else _("%(told)s; imported.")
        self.stdout.write(ending % {"told": told})
        if unknown:
            told = _("%(count)d of the keys were not in the pool: added, disabled. Enable them in the admin.")
            self.stdout.write(told % {"count": unknown})
