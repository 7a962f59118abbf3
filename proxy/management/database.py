"""Helpers shared by backup and restore: the database file, the contents of a copy, and error messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from proxy.sqlite.base import Database
from proxy.sqlite.copies import Content
from proxy.sqlite.lock import database_file


def require_sqlite_file() -> Path:
    """Return the file of the SQLite database. Raises CommandError for other engines."""
    path = database_file()
    if path is None:
        raise CommandError(_("This command works with SQLite only. For PostgreSQL, use pg_dump and pg_restore."))
    return path


def describe(content: Content) -> str:
    """Return "3 keys and 1 day of usage"."""
    keys = ngettext("%(count)d key", "%(count)d keys", content.keys) % {"count": content.keys}
    days = ngettext("%(count)d day of usage", "%(count)d days of usage", content.days) % {"count": content.days}
    return _("%(keys)s and %(days)s") % {"keys": keys, "days": days}


@contextmanager
def errors_explained(name: str, message: str) -> Iterator[None]:
    """Turn errors of the disk and of SQLite into CommandError. `message` contains %(name)s and %(error)s."""
    try:
        yield
    except FileExistsError:
        raise CommandError(_("%(name)s already exists. Choose another name.") % {"name": name}) from None
    except OSError as exc:
        raise CommandError(message % {"name": name, "error": exc.strerror}) from None
    except Database.Error as exc:
        raise CommandError(message % {"name": name, "error": exc}) from None
