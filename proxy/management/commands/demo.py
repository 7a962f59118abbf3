"""`manage.py demo`: fill an empty database with a sample pool and its history."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from proxy.demo import Plan, fill, is_empty
from proxy.management.base import PoolCommand


class Command(PoolCommand):
    help = gettext_noop(
        "Fill an EMPTY database with sample keys and months of history, to show every page with data. Google rejects "
        "these keys, so requests fail. Delete the database before real use."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--keys", type=_whole(1, 10_000), default=40, help=_("number of keys (default: 40)"))
        parser.add_argument("--days", type=_whole(1, 800), default=120, help=_("days of history (default: 120)"))
        parser.add_argument(
            "--log-rows", type=_whole(0, 1_000_000), default=5000, help=_("requests in the log (default: 5000)")
        )
        parser.add_argument("--seed", type=int, default=1, help=_("random seed (default: 1)"))

    def handle(self, *args: Any, keys: int, days: int, log_rows: int, seed: int, **options: Any) -> None:
        if not is_empty():
            raise CommandError(_("The database already contains keys or usage. Sample data needs an empty database."))
        made = fill(Plan(keys, days, log_rows), timezone.now(), seed)
        self.stdout.write(
            _(
                "Added %(keys)d sample keys in %(projects)d projects, %(days)d days of usage, "
                "and %(requests)d requests in the log."
            )
            % {**made._asdict(), "days": days}
        )
        self.stdout.write(
            _(
                "To see them, create an account with `python manage.py createsuperuser`, run `python manage.py serve`, "
                "and open /dashboard/."
            )
        )


def _whole(least: int, most: int) -> Callable[[str], int]:
    """Return an argument parser for whole numbers from `least` to `most`."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
            return int(text)
        raise ArgumentTypeError(
            _("must be a whole number from %(least)d to %(most)d, not %(text)r")
            % {"least": least, "most": most, "text": text}
        )

    return read
