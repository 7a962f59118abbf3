"""`manage.py serve`, which `make run` calls: check, migrate, import keys, create an admin, print a summary, serve."""

import os
import secrets
import socket
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.db import connection
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.dashboard.reports import pool_state
from proxy.dashboard.reports.health import migrations
from proxy.management.base import TerminalCommand
from proxy.management.files import permission_warning, read_text
from proxy.management.preparing import one_node_at_a_time
from proxy.models import ApiKey, SharedSecretKey, database_now
from proxy.pool.adding import add_keys
from proxy.pool.key_file import read_keys
from proxy.pool.summary import malformed_warning, odd_warning, summary
from proxy.sqlite.lock import hold_while_serving


class Command(TerminalCommand):
    help = gettext_noop("Prepare everything and serve with gunicorn. Settings come from the environment and .env.")
    requires_system_checks = "__all__"

    def get_check_kwargs(self, options: dict[str, Any]) -> dict[Any, Any]:
        return {**super().get_check_kwargs(options), "databases": ["default"]}

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--no-migrate", action="store_true", help=_("do not migrate the database, as it is done elsewhere")
        )
        parser.add_argument(
            "--new-secret-key", action="store_true", help=_("accept that SECRET_KEY has changed since the last start")
        )

    def handle(self, *args: Any, no_migrate: bool, new_secret_key: bool, **options: Any) -> None:
        _check_addresses()
        hold_while_serving(over_exec=True)
        with one_node_at_a_time():
            if not no_migrate:
                call_command("migrate", verbosity=0)
            elif migrations().unapplied:
                raise CommandError(_("The database is not migrated. Run `python manage.py migrate`."))
            _check_secret_key(is_new=new_secret_key)
            imported, warnings = _import_key_file()
            password = _create_admin()
        for line in _welcome(imported, password):
            self.stdout.write(line)
        for warning in warnings:
            self.stderr.write(self.style.WARNING(warning))
        self.stdout.flush()
        os.chdir(settings.BASE_DIR)
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "--env", "SETTINGS_ARE_CHECKED=1"])  # noqa: S606  # the other options are in gunicorn.conf.py


def _check_addresses() -> None:
    """Raise CommandError if an address is in use; gunicorn would keep retrying."""
    for address in settings.BIND.split(","):
        host, _colon, port = address.strip().rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host.strip("[]"), int(port)))
            except OSError as exc:
                raise CommandError(
                    _("Cannot listen on %(address)s: %(error)s. Stop the program that uses it, or change BIND.")
                    % {"address": address, "error": exc.strerror}
                ) from None


def _check_secret_key(*, is_new: bool) -> None:
    """Raise CommandError if another node of the same database has another SECRET_KEY."""
    if connection.vendor != "postgresql":  # only this node
        return
    if is_new:
        SharedSecretKey.replace()
    elif not SharedSecretKey.is_ours():
        raise CommandError(
            _(
                "SECRET_KEY differs from that of the other nodes of this database. Set it to the same value on all of "
                "them; after a change, start one with --new-secret-key."
            )
        )


def _import_key_file() -> tuple[str, list[str]]:
    """Import KEY_FILE. Return a summary, which is "" if there is no such file, and warnings to print."""
    path = settings.BASE_DIR / settings.KEY_FILE
    if not path.is_file():
        return "", []
    lines = read_keys(read_text(str(path)))
    new, known = add_keys(lines.secrets, database_now(), names=lines.names)
    warnings = [f"{path.name}: {text}" for text in (malformed_warning(lines), odd_warning(lines)) if text]
    return f"{path.name}: {summary(lines, new, known)}", [*warnings, *filter(None, [permission_warning(str(path))])]


def _create_admin() -> str:
    """Create an admin if there is none. Return its password, or "" if none was created."""
    users = get_user_model()._default_manager
    if users.filter(is_superuser=True).exists():
        return ""
    password = secrets.token_urlsafe(12)
    users.create_superuser("admin", None, password)
    return password


def _welcome(imported: str, password: str) -> list[str]:
    host, _colon, port = settings.BIND.split(",")[0].rpartition(":")
    url = f"http://{'localhost' if host in ('0.0.0.0', '[::]', '') else host}:{port}"  # noqa: S104
    state = pool_state(database_now())
    keys = _("%(usable)d usable (%(limited)d rate-limited), %(bad)d bad, %(disabled)d disabled") % state._asdict()
    has_default_token = settings.PLACEHOLDER_TOKEN == settings.DEFAULT_TOKEN
    token = settings.PLACEHOLDER_TOKEN if has_default_token else _("(the value of PLACEHOLDER_TOKEN)")
    login = _("  name admin, password %(password)s (shown only once)") % {"password": password} if password else ""
    lines = [
        _("Gemini key manager, listening on %(address)s") % {"address": settings.BIND},
        _("  keys       %(keys)s") % {"keys": keys},
        *([f"             {imported}"] if imported else []),
        _("  clients    base URL %(url)s, API key %(token)s") % {"url": url, "token": token},
        _("  OpenAI     base URL %(url)s/v1, the same key") % {"url": url},
        _("  dashboard  %(url)s/dashboard/") % {"url": url},
        _("  admin      %(url)s/admin/") % {"url": url} + login,
    ]
    if not ApiKey.objects.present().exists():
        lines.append(
            _("No keys yet. Add them in the admin, or write them to %(file)s, one per line, and restart.")
            % {"file": settings.KEY_FILE}
        )
    if has_default_token:
        lines.append(
            _(
                "Warning: the token is the public default, and is accepted from any address (ALLOW_DEFAULT_TOKEN). "
                "Create your own: python manage.py newtoken"
            )
            if settings.ALLOW_DEFAULT_TOKEN
            else _(
                "Warning: the token is the public default, so it works only from this machine and private networks. "
                "Create your own: python manage.py newtoken"
            )
        )
    return lines
