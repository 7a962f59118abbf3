#!/usr/bin/env python
"""Django's command line: `python manage.py help` lists the commands."""

import io
import os
import sys


def main(arguments: list[str]) -> None:
    """Run a command. Whatever keeps it from its work is told in a sentence, not in a traceback."""
    if os.name == "nt":
        sys.exit("The key manager does not run on Windows itself: run it in WSL or with Docker (README.md).")
    import django  # noqa: PLC0415  # not before we know that it can run here
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415
    from django.core.management import CommandError, call_command, execute_from_command_line  # noqa: PLC0415
    from django.db import DatabaseError  # noqa: PLC0415

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "keymanager.settings")
    try:
        if arguments[1:2] == ["runserver"] and "RUN_MAIN" not in os.environ:
            # Its reloader would show a traceback, and then wait for somebody to change a file.
            django.setup()
            call_command("check", databases=["default"], stdout=io.StringIO(), stderr=io.StringIO())
        execute_from_command_line(arguments)
    except (ImproperlyConfigured, CommandError) as exc:
        sys.exit(f"{exc}")
    except DatabaseError as exc:
        told = " ".join(str(exc).split())
        sys.exit(f"The database cannot be used: {told}. It is where DATABASE_URL says, or in DATA_DIR.")


if __name__ == "__main__":
    main(sys.argv)
