"""`manage.py demo`: fill an empty database with a made-up pool and its past."""

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
        "Fill an EMPTY database with made-up keys and months of history, so that every page can be looked at. The keys "
        "work nowhere: Google answers requests for them with an error. To begin for real, delete the database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--keys", type=_whole(1, 10_000), default=40, help=_("how many keys (40)"))
        parser.add_argument("--days", type=_whole(1, 800), default=120, help=_("how many days of history (120)"))
        parser.add_argument("--log-rows", type=_whole(0, 1_000_000), default=5000, help=_("requests in the log (5000)"))
        parser.add_argument("--seed", type=int, default=1, help=_("another number makes another pool (1)"))

    def handle(self, *args: Any, keys: int, days: int, log_rows: int, seed: int, **options: Any) -> None:
        if not is_empty():
            raise CommandError(
                _("There are keys or their usage in the database already; made-up ones would mix with it.")
            )
        made = fill(Plan(keys, days, log_rows), timezone.now(), seed)
        self.stdout.write(
            _(
                "%(keys)d made-up keys in %(projects)d projects, %(days)d days of usage, "
                "%(requests)d requests in the log."
            )
            % {**made._asdict(), "days": days}
        )
        self.stdout.write(
            _("Look at /dashboard/ once `python manage.py serve` runs; `python manage.py createsuperuser` lets you in.")
        )


def _whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number within limits."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
            return int(text)
        raise ArgumentTypeError(
            _("must be a whole number from %(least)d to %(most)d, not %(text)r")
            % {"least": least, "most": most, "text": text}
        )

    return read
