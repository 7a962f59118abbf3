"""`manage.py exportusage key_usage.txt`: write a day's usage as the script that came before did."""

from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from proxy.management.base import PoolCommand
from proxy.management.files import write_private
from proxy.reports import today
from proxy.usagefile import export_usage


class Command(PoolCommand):
    help = "Write the usage of a quota day to FILE, as JSON. Real keys are in it: it is readable by you alone."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard output")
        parser.add_argument("--day", help="a quota day like 2026-11-23; today when left out")

    def handle(self, *args: Any, file: str, day: str | None, **options: Any) -> None:
        moment = timezone.now()
        try:
            quota_day = date.fromisoformat(day) if day else today(moment)
        except ValueError:
            raise CommandError(f"--day {day} is no date; write it like 2026-11-23.") from None
        if not date(2000, 1, 1) <= quota_day <= today(moment):
            raise CommandError(f"--day {day} is no day of this pool; the quota day is {today(moment)} now.")
        text = export_usage(quota_day, moment)
        if file == "-":
            self.stdout.write(text, ending="")
            return
        write_private(file, text)
        self.stdout.write(f"{quota_day}: written to {file}.")
