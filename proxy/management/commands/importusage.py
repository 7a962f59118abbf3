"""`manage.py importusage key_usage.txt`: take over the counts of the script that came before."""

from dataclasses import replace
from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from proxy.management.base import PoolCommand
from proxy.management.files import read_text
from proxy.reports import today
from proxy.usagefile import BadUsageFile, import_usage, parse_usage


class Command(PoolCommand):
    help = "Add the counts and exhausted keys of FILE (a key_usage.txt) to ours. Running it twice is harmless."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
        parser.add_argument("--day", help="count it under this quota day, like 2026-11-23, whatever date the file has")
        parser.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")

    def handle(self, *args: Any, file: str, day: str | None, dry_run: bool, **options: Any) -> None:
        moment = timezone.now()
        try:
            usage = parse_usage(read_text(file))
            usage = replace(usage, day=date.fromisoformat(day)) if day else usage
        except BadUsageFile as exc:
            raise CommandError(f"{file} is no key_usage.txt: {exc}.") from None
        except ValueError:
            raise CommandError(f"--day {day} is no date; write it like 2026-11-23.") from None
        if usage.day > today(moment):
            raise CommandError(
                f"{file} is of {usage.day}, and the quota day is {today(moment)} now: "
                f"count it under that day with --day {today(moment)}."
            )
        unknown = 0 if dry_run else import_usage(usage, moment)
        told = f"{usage.day}: {usage.answers} answers, keys used {len(usage.counts)}, exhausted {len(usage.exhausted)}"
        self.stdout.write(f"{told}; nothing was changed." if dry_run else f"{told}; imported.")
        if unknown:
            self.stdout.write(f"{unknown} of the keys were not in the pool: added, disabled. Enable them in the admin.")
