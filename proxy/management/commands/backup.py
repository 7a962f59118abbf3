"""`manage.py backup FILE`: copy the SQLite database while the service runs."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.management.base import TerminalCommand
from proxy.management.database import describe, errors_explained, require_sqlite_file
from proxy.management.stopping import raise_on_stop
from proxy.sqlite.copies import UnfitDatabase, copy_database, folder_beside, publish, verify


class Command(TerminalCommand):
    help = gettext_noop(
        "Copy the database to FILE, even while the service runs. The copy contains the keys in clear text."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("the file to create"))

    def handle(self, *args: Any, file: str, **options: Any) -> None:
        database = require_sqlite_file()
        if not database.exists():
            raise CommandError(_("The database %(name)s does not exist yet.") % {"name": database})
        if file == "-":
            raise CommandError(_("A backup cannot go to standard output. Give a file name."))
        path = Path(file).absolute()
        with (
            errors_explained(file, _("%(name)s cannot be written: %(error)s.")),
            raise_on_stop(_("Stopped. No backup was written.")) as ignore_signals,
        ):
            if path.is_symlink() or path.exists():
                raise FileExistsError
            with folder_beside(path) as folder:
                copy = folder / "copy.sqlite3"
                try:
                    copy_database(database, copy)
                    content = verify(copy)
                except UnfitDatabase as exc:
                    raise CommandError(f"{database} {exc}.") from None
                size = filesizeformat(copy.stat().st_size).replace("\xa0", " ")  # not every terminal can print it
                ignore_signals()
                publish(copy, path)
        self.stdout.write(
            _("Backed up %(content)s to %(file)s (%(size)s). It contains the keys in clear text: keep it private.")
            % {"content": describe(content), "file": file, "size": size}
        )
