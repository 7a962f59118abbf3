"""What our commands have in common."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils.translation import gettext as _
from django.utils.translation import override


class TerminalCommand(BaseCommand):
    """A command that speaks the language of the terminal. help: marked with gettext_noop."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        with override(settings.TERMINAL_LANGUAGE):
            self.help = _(type(self).help)
            return super().create_parser(prog_name, subcommand, **kwargs)

    def execute(self, *args: Any, **options: Any) -> str | None:
        with override(settings.TERMINAL_LANGUAGE):
            return super().execute(*args, **options)


class PoolCommand(TerminalCommand):
    """A command that needs the pool: says in one sentence when the database is not ready for it."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except DatabaseError as exc:
            with override(settings.TERMINAL_LANGUAGE):
                raise CommandError(_what_is_wrong(str(exc))) from None


def _what_is_wrong(error: str) -> str:
    if "no such table" in error or "does not exist" in error:
        return _("The database is not ready: run `python manage.py migrate` first.")
    told = _("The database cannot be used: %(error)s.") % {"error": " ".join(error.split()).rstrip(".")}
    return f"{told} {_('It is where DATABASE_URL says, or in DATA_DIR.')}"
