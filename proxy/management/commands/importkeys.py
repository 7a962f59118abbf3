"""`manage.py importkeys key.txt`: put the keys of a file into the pool."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.management.base import PoolCommand
from proxy.management.files import read_text, readers_told
from proxy.pool.adding import add_keys, count_new
from proxy.pool.key_file import read_keys
from proxy.pool.summary import malformed_told, odd_told, summary


class Command(PoolCommand):
    help = gettext_noop(
        "Put the keys of FILE (text, CSV, JSON or .env, names included) into the pool. Running it twice is harmless."
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
            new, known = add_keys(lines.secrets, timezone.now(), names=lines.names)
        self.stdout.write(summary(lines, new, known, is_done=not dry_run))
        for warning in filter(None, [odd_told(lines), readers_told(file)]):
            self.stderr.write(self.style.WARNING(warning))
        if lines.malformed:
            raise CommandError(malformed_told(lines))
