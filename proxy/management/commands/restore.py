"""`manage.py restore FILE`: put a backup in the place of the SQLite database."""

from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.management.base import PoolCommand
from proxy.management.database import file_of_database, mistakes_told, told
from proxy.management.stopping import stopping_raises
from proxy.sqlite.copies import Content, UnfitDatabase, copy_files, folder_beside, look_over, remove_leftovers
from proxy.sqlite.lock import ServiceIsRunning, nobody_serving
from proxy.sqlite.replacing import replace, set_aside


class Command(PoolCommand):
    help = gettext_noop(
        "Replace the database with the backup FILE, and keep the old one beside it. Stop the service first."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("what `manage.py backup` wrote"))

    def handle(self, *args: Any, file: str, **options: Any) -> None:
        database = file_of_database()
        try:
            with mistakes_told(file, _("%(name)s cannot be restored: %(error)s.")), nobody_serving(database):
                content, kept = _restore(Path(file), database, timezone.now())
        except ServiceIsRunning:
            raise CommandError(
                _("The service is running, or another program has the database open. Stop it first, then restore.")
            ) from None
        except UnfitDatabase as exc:
            raise CommandError(f"{file} {exc}.") from None
        restored = _("Restored %(content)s from %(file)s.") % {"content": told(content), "file": file}
        before = _("The previous database is now %(kept)s.") % {"kept": kept}
        self.stdout.write(f"{restored} {before}" if kept.exists() else restored)


def _restore(file: Path, database: Path, moment: datetime) -> tuple[Content, Path]:
    """Return what is in the database now, and where the one of before is, if there was one."""
    if not file.is_file():
        name = {"name": file}
        raise CommandError((_("%(name)s is not a file.") if file.exists() else _("There is no file %(name)s.")) % name)
    if database.exists() and file.samefile(database):
        raise CommandError(_("%(name)s is the database itself; name a backup of it.") % {"name": file})
    remove_leftovers(database)
    kept = database.with_name(f"{database.name}.before-restore-{moment:%Y%m%d-%H%M%S-%f}")
    with stopping_raises(_("Stopped. The database is as it was.")) as finish_anyway, folder_beside(database) as folder:
        fresh, old = folder / "fresh.sqlite3", folder / "old.sqlite3"
        copy_files(file, fresh)
        content = look_over(fresh)
        with set_aside(database, old):
            finish_anyway()
            replace(database, fresh=fresh, old=old, kept=kept)
        if content.is_older:
            call_command("migrate", verbosity=0)
    return content, kept
