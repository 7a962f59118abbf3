"""Health: versions, the database, the queue of one worker, keys by state, and the settings in force."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from keymanager import __version__
from proxy.checks import check_sqlite
from proxy.dashboard.parts.filters import read_filters
from proxy.dashboard.parts.page import answer, dashboard_page
from proxy.dashboard.parts.tables import Cell, Column, Table
from proxy.dashboard.reports import health as report
from proxy.ledger import ledger
from proxy.live.session import Session
from proxy.models import ApiKey, KeyState, database_now


@dashboard_page
def health(request: HttpRequest) -> HttpResponse:
    """Show what the service runs on."""
    moment = database_now()
    return answer(
        request,
        "health",
        _("Health"),
        filters=read_filters(request, moment),
        tables=[_versions_table(), _database_table(), _ledger_table(), _keys_table(), _settings_table()],
        moment=moment,
    )


def _versions_table() -> Table:
    rows = [(_("Key manager"), __version__), *report.versions()]
    return Table("versions", _("Versions"), [Column("what", _("What")), Column("version", _("Version"))], rows)


def _database_table() -> Table:
    database, migrations = report.database(), report.migrations()
    rows: list[tuple[str, object]] = [(_("Kind and version"), f"{database.vendor} {database.version}")]
    if database.vendor == "sqlite":
        unsafe = " ".join(str(warning.msg) for warning in check_sqlite(None))
        rows += [
            (_("File"), database.name),
            (_("File size"), _bytes(database.size)),
            (_("Size of the write-ahead log (-wal)"), _bytes(database.wal_size)),
            (_("Is this SQLite version safe?"), unsafe or _("yes")),
        ]
    else:
        rows += [(_("Name"), database.name), (_("Host"), database.host)]
    behind = _("%s: run `python manage.py migrate`") % ", ".join(migrations.unapplied)
    rows += [
        (_("Requests in the log (approximate)"), report.logged_rows()),
        (_("Migrations applied"), migrations.applied),
        (_("Migrations not applied"), behind if migrations.unapplied else _("none")),
    ]
    return Table("database", _("Database"), _columns(), rows)


def _bytes(size: int | None) -> Cell:
    return Cell(size, html="" if size is None else format_html("{}", filesizeformat(size)))


def _ledger_table() -> Table:
    rows = [
        (_("Entries in the queue"), ledger.queued),
        (_("Requests waiting for a key"), ledger.waiting),
        (_("Most requests that can wait (MAX_WAITING)"), ledger.most_waiting),
        (_("Open sessions of the Live API"), len(Session.running)),
    ]
    note = _("For the worker process that served this page. WEB_WORKERS is %s, and each worker has its own queue.")
    return Table("ledger", _("The ledger of one worker"), _columns(), rows, note=note % settings.WEB_WORKERS)


def _keys_table() -> Table:
    address = reverse("proxy:keys")
    rows = [
        (Cell(str(state.label), href="" if state is KeyState.DELETED else f"{address}?state={state.value}"), count)
        for state, count in ApiKey.objects.count_by_state().items()
    ]
    columns = [Column("state", _("State")), Column("keys", _("Keys"), "number")]
    return Table("keys", _("Keys by state"), columns, rows)


def _settings_table() -> Table:
    words = {
        "set": _("set, not shown"),
        "default": _("the well-known default"),
        "made": _("not set; generated and stored in DATA_DIR"),
        "password": _("with a password, not shown"),
    }
    rows = [
        (setting.name, " ".join(filter(None, [setting.value, words.get(setting.secret, "")])) or _("not set"))
        for setting in report.settings_in_force()
    ]
    note = _("Change them in the environment or in .env, then restart the service. docs/settings.md explains each one.")
    return Table("settings", _("Settings in force"), _columns(_("Variable")), rows, note=note)


def _columns(first: str = "") -> list[Column]:
    return [Column("what", first or _("What")), Column("value", _("Value"), "words")]
