"""`manage.py restore FILE`: replace the SQLite database with a backup."""

from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.management.base import PoolCommand
from proxy.management.database import describe, errors_explained, require_sqlite_file
from proxy.management.stopping import raise_on_stop
from proxy.sqlite.copies import Content, UnfitDatabase, copy_files, folder_beside, remove_leftovers, verify
from proxy.sqlite.lock import ServiceIsRunning, nobody_serving
from proxy.sqlite.replacing import replace, set_aside


class Command(PoolCommand):
    help = gettext_noop(
        "Replace the database with the backup FILE. The old database is kept beside it. Stop the service first."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("a file written by `manage.py backup`"))

    def handle(self, *args: Any, file: str, **options: Any) -> None:
        database = require_sqlite_file()
        try:
            with errors_explained(file, _("%(name)s cannot be restored: %(error)s.")), nobody_serving(database):
                content, kept = _restore(Path(file), database, timezone.now())
        except ServiceIsRunning:
            raise CommandError(
                _("The service is running, or another program has the database open. Stop it first, then restore.")
            ) from None
        except UnfitDatabase as exc:
            raise CommandError(f"{file} {exc}.") from None
        restored = _("Restored %(content)s from %(file)s.") % {"content": describe(content), "file": file}
        previous = _("The previous database is now %(kept)s.") % {"kept": kept}
        self.stdout.write(f"{restored} {previous}" if kept.exists() else restored)


def _restore(file: Path, database: Path, moment: datetime) -> tuple[Content, Path]:
    """Return the contents of the restored database, and the path of the previous one, which may not exist."""
    if not file.is_file():
        words = {"name": file}
        raise CommandError((_("%(name)s is not a file.") if file.exists() else _("%(name)s does not exist.")) % words)
    if database.exists() and file.samefile(database):
        raise CommandError(_("%(name)s is the database itself, not a backup.") % {"name": file})
    remove_leftovers(database)
    kept = database.with_name(f"{database.name}.before-restore-{moment:%Y%m%d-%H%M%S-%f}")
    with raise_on_stop(_("Stopped. The database is unchanged.")) as ignore_signals, folder_beside(database) as folder:
        fresh, old = folder / "fresh.sqlite3", folder / "old.sqlite3"
        copy_files(file, fresh)
        content = verify(fresh)
        with set_aside(database, old):
            ignore_signals()
            replace(database, fresh=fresh, old=old, kept=kept)
        if content.is_older:
            call_command("migrate", verbosity=0)
    return content, kept
