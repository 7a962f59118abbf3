"""What our commands have in common."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError


class PoolCommand(BaseCommand):
    """A command that needs the pool: says in one sentence when the database is not ready for it."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (OperationalError, ProgrammingError) as exc:
            if "no such table" in str(exc) or "does not exist" in str(exc):
                raise CommandError("The database is not ready: run `python manage.py migrate` first.") from None
            raise CommandError(f"The database does not answer: {str(exc).strip()}.") from None
