"""`manage.py importusage key_usage.txt`: take over the counts of the script that came before."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from proxy.management.files import read_text
from proxy.reports import today
from proxy.usagefile import BadUsageFile, import_usage, parse_usage


class Command(BaseCommand):
    help = "Add the counts and exhausted keys of FILE (a key_usage.txt) to ours. Running it twice is harmless."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        moment = timezone.now()
        try:
            usage = parse_usage(read_text(file))
        except BadUsageFile as exc:
            raise CommandError(f"{file} is no key_usage.txt: {exc}.") from None
        if usage.day > today(moment):
            raise CommandError(f"{file} is of {usage.day}, and today is {today(moment)} where quota days begin.")
        unknown = 0 if dry_run else import_usage(usage, moment)
        exhausted = f"{len(usage.exhausted)} key{'' if len(usage.exhausted) == 1 else 's'} exhausted"
        told = f"{usage.day}: {usage.answers} answers of {len(usage.counts)} keys, {exhausted}"
        self.stdout.write(f"{told}; nothing was changed." if dry_run else f"{told}; imported.")
        if unknown:
            self.stdout.write(f"{unknown} of the keys were not in the pool: added, disabled. Enable them in the admin.")
