"""`manage.py migrate`, which several nodes may run at once."""

from typing import Any

from django.core.management.commands import migrate

from proxy.management.preparing import one_node_at_a_time


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate, one node at a time."""
        with one_node_at_a_time():
            super().handle(*args, **options)
