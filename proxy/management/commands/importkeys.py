"""`manage.py importkeys key.txt`: put the keys of a file into the pool."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from proxy.keyfile import read_keys
from proxy.management.base import PoolCommand
from proxy.management.files import read_text
from proxy.pool import add_keys, count_new


class Command(PoolCommand):
    help = "Put the keys of FILE (one a line, # for comments) into the pool. Running it twice is harmless."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        lines = read_keys(read_text(file))
        if dry_run:
            new = count_new(lines.secrets)
            known = len(lines.secrets) - new
        else:
            new, known = add_keys(lines.secrets, timezone.now())
        told = f"{new} {'would be added' if dry_run else 'added'}, {known} known"
        if lines.repeated:
            told += f", {lines.repeated} repeated"
        told += f", {len(lines.malformed)} malformed"
        self.stdout.write(told + (f" ({_line_numbers(lines.malformed)})." if lines.malformed else "."))
        if lines.odd:
            self.stderr.write(
                self.style.WARNING(
                    f"Taken, although neither like AIza… nor like AQ.…: {_line_numbers(lines.odd)}. "
                    "`manage.py checkkeys` tells whether Google knows them."
                )
            )


def _line_numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    more = f" and {len(numbers) - 20} more" if len(numbers) > 20 else ""
    return f"line{'s' if len(numbers) > 1 else ''} {shown}{more}"
