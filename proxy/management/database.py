"""What backup and restore have in common: where the database is, what a copy holds, and mistakes in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from proxy.sqlite.base import Database
from proxy.sqlite.copies import Content
from proxy.sqlite.lock import database_file


def file_of_database() -> Path:
    """Return the file of the SQLite database. Raises CommandError on another engine."""
    path = database_file()
    if path is None:
        raise CommandError(
            _("This is for SQLite. The database is PostgreSQL: use pg_dump to back it up and pg_restore to go back.")
        )
    return path


def told(content: Content) -> str:
    """Return "3 keys and 1 day of usage"."""
    keys = ngettext("%(count)d key", "%(count)d keys", content.keys) % {"count": content.keys}
    days = ngettext("%(count)d day of usage", "%(count)d days of usage", content.days) % {"count": content.days}
    return _("%(keys)s and %(days)s") % {"keys": keys, "days": days}


@contextmanager
def mistakes_told(name: str, message: str) -> Iterator[None]:
    """Raise CommandError for what the disk or SQLite refuses. message: has %(name)s and %(error)s."""
    try:
        yield
    except FileExistsError:
        raise CommandError(_("%(name)s exists already; name another file.") % {"name": name}) from None
    except OSError as exc:
        raise CommandError(message % {"name": name, "error": exc.strerror}) from None
    except Database.Error as exc:
        raise CommandError(message % {"name": name, "error": exc}) from None
