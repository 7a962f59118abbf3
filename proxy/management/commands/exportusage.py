"""`manage.py exportusage key_usage.txt`: write a day's usage in the format of the old script."""

from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.dashboard.reports import today
from proxy.management.base import PoolCommand
from proxy.management.files import write_private
from proxy.models import database_now
from proxy.pool.usage_file import export_usage


class Command(PoolCommand):
    help = gettext_noop(
        "Write the usage of a quota day to FILE as JSON. FILE contains the keys in clear text; only you can read it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("the file, or - for standard output"))
        parser.add_argument("--day", help=_("the quota day, such as 2026-11-23 (default: today)"))

    def handle(self, *args: Any, file: str, day: str | None, **options: Any) -> None:
        moment = database_now()
        try:
            quota_day = date.fromisoformat(day) if day else today(moment)
        except ValueError:
            raise CommandError(_("--day %(day)s is not a date like 2026-11-23.") % {"day": day}) from None
        if not date(2000, 1, 1) <= quota_day <= today(moment):
            words = {"day": quota_day, "today": today(moment)}
            raise CommandError(_("--day must be from 2000-01-01 to today (%(today)s), not %(day)s.") % words)
        text = export_usage(quota_day, moment)
        if file == "-":
            self.stdout.write(text, ending="")
            return
        write_private(file, text)
        self.stdout.write(_("Wrote the usage of %(day)s to %(file)s.") % {"day": quota_day, "file": file})
