"""Base classes of the management commands."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils.translation import gettext as _
from django.utils.translation import override


class TerminalCommand(BaseCommand):
    """A command in the language of the terminal. Mark `help` with gettext_noop."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        with override(settings.TERMINAL_LANGUAGE):
            self.help = _(type(self).help)
            return super().create_parser(prog_name, subcommand, **kwargs)

    def execute(self, *args: Any, **options: Any) -> str | None:
        with override(settings.TERMINAL_LANGUAGE):
            return super().execute(*args, **options)


class PoolCommand(TerminalCommand):
    """A command that needs the database, and reports database errors in one sentence."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except DatabaseError as exc:
            with override(settings.TERMINAL_LANGUAGE):
                raise CommandError(_explain(str(exc))) from None


def _explain(error: str) -> str:
    if "no such table" in error or "does not exist" in error:
        return _("The database is not ready: run `python manage.py migrate` first.")
    problem = _("The database cannot be used: %(error)s.") % {"error": " ".join(error.split()).rstrip(".")}
    return f"{problem} {_('Check DATABASE_URL and DATA_DIR.')}"
