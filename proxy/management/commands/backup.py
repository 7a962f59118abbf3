"""`manage.py backup FILE`: copy the SQLite database while the service runs."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.management.base import TerminalCommand
from proxy.management.database import file_of_database, mistakes_told, told
from proxy.management.stopping import stopping_raises
from proxy.sqlite.copies import UnfitDatabase, copy_database, folder_beside, look_over, publish


class Command(TerminalCommand):
    help = gettext_noop("Copy the database to FILE, also while the service runs. The keys are in it in clear text.")

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("a new file"))

    def handle(self, *args: Any, file: str, **options: Any) -> None:
        database = file_of_database()
        if not database.exists():
            raise CommandError(_("There is no database %(name)s yet.") % {"name": database})
        if file == "-":
            raise CommandError(_("A database cannot go to standard output; name a file."))
        path = Path(file).absolute()
        with (
            mistakes_told(file, _("%(name)s cannot be written: %(error)s.")),
            stopping_raises(_("Stopped. There is no backup.")) as finish_anyway,
        ):
            if path.is_symlink() or path.exists():
                raise FileExistsError
            with folder_beside(path) as folder:
                copy = folder / "copy.sqlite3"
                try:
                    copy_database(database, copy)
                    content = look_over(copy)
                except UnfitDatabase as exc:
                    raise CommandError(f"{database} {exc}.") from None
                size = filesizeformat(copy.stat().st_size).replace("\xa0", " ")  # a terminal may not know that blank
                finish_anyway()
                publish(copy, path)
        self.stdout.write(
            _("Backed up %(content)s to %(file)s (%(size)s). It holds the keys in clear text: keep it private.")
            % {"content": told(content), "file": file, "size": size}
        )
