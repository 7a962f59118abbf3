#!/usr/bin/env python
"""Django's command line: `python manage.py help` lists the commands."""

import io
import os
import sys


def main(arguments: list[str]) -> None:
    """Run a command. Print expected errors as one sentence, without a traceback."""
    if os.name == "nt":
        sys.exit("The key manager does not run on Windows. Use WSL or Docker (README.md).")
    import django  # noqa: PLC0415  # after the check for Windows
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415
    from django.core.management import CommandError, call_command, execute_from_command_line  # noqa: PLC0415
    from django.db import DatabaseError  # noqa: PLC0415

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "keymanager.settings")
    try:
        if arguments[1:2] == ["runserver"] and "RUN_MAIN" not in os.environ:
            # Its reloader would show a traceback, and then wait for a change of a file.
            django.setup()
            call_command("check", databases=["default"], stdout=io.StringIO(), stderr=io.StringIO())
        execute_from_command_line(arguments)
    except (ImproperlyConfigured, CommandError) as exc:
        sys.exit(f"{exc}")
    except DatabaseError as exc:
        error = " ".join(str(exc).split())
        sys.exit(f"The database cannot be used: {error}. Check DATABASE_URL and DATA_DIR.")


if __name__ == "__main__":
    main(sys.argv)
