"""`manage.py exportusage key_usage.txt`: write a day's usage as the script that came before did."""

from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.dashboard.reports import today
from proxy.management.base import PoolCommand
from proxy.management.files import write_private
from proxy.pool.usage_file import export_usage


class Command(PoolCommand):
    help = gettext_noop(
        "Write the usage of a quota day to FILE, as JSON. Real keys are in it: it is readable by you alone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("the file, or - for standard output"))
        parser.add_argument("--day", help=_("a quota day like 2026-11-23; today when left out"))

    def handle(self, *args: Any, file: str, day: str | None, **options: Any) -> None:
        moment = timezone.now()
        try:
            quota_day = date.fromisoformat(day) if day else today(moment)
        except ValueError:
            raise CommandError(_("--day %(day)s is no date; write it like 2026-11-23.") % {"day": day}) from None
        if not date(2000, 1, 1) <= quota_day <= today(moment):
            told = {"day": day, "today": today(moment)}
            raise CommandError(_("--day %(day)s is no day of this pool; the quota day is %(today)s now.") % told)
        text = export_usage(quota_day, moment)
        if file == "-":
            self.stdout.write(text, ending="")
            return
        write_private(file, text)
        self.stdout.write(_("%(day)s: written to %(file)s.") % {"day": quota_day, "file": file})
