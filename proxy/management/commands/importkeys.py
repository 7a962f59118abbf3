"""`manage.py importkeys key.txt`: add the keys in a file to the pool."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.management.base import PoolCommand
from proxy.management.files import permission_warning, read_text
from proxy.models import database_now
from proxy.pool.adding import add_keys, count_new
from proxy.pool.key_file import read_keys
from proxy.pool.summary import malformed_warning, odd_warning, summary


class Command(PoolCommand):
    help = gettext_noop(
        "Add the keys in FILE (text, CSV, JSON or .env), with their names, to the pool. Running it twice is safe."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("the file, or - for standard input"))
        parser.add_argument(
            "--dry-run", action="store_true", help=_("show what would happen, without changing anything")
        )

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        lines = read_keys(read_text(file))
        if dry_run:
            new = count_new(lines.secrets)
            known = len(lines.secrets) - new
        else:
            new, known = add_keys(lines.secrets, database_now(), names=lines.names)
        self.stdout.write(summary(lines, new, known, is_done=not dry_run))
        for warning in filter(None, [odd_warning(lines), permission_warning(file)]):
            self.stderr.write(self.style.WARNING(warning))
        if lines.malformed:
            raise CommandError(malformed_warning(lines))
