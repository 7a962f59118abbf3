"""Files that commands read and write: whole or not at all, and every mistake in one clear sentence."""

import codecs
import os
import shlex
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from django.core.management.base import CommandError
from django.utils.translation import gettext as _


def read_text(name: str) -> str:
    """Return the text of the file `name`, or of standard input for `-`. Raises CommandError when that cannot be.

    It is in UTF-8, or in UTF-16 with the mark that Windows editors write before it.
    """
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except FileNotFoundError:
        raise CommandError(_("There is no file %(name)s.") % {"name": name}) from None
    except IsADirectoryError:
        raise CommandError(_("%(name)s is a directory; name a file in it.") % {"name": name}) from None
    except UnicodeDecodeError as exc:
        told = {"name": name, "byte": exc.start}
        raise CommandError(_("%(name)s is not UTF-8 text (byte %(byte)d); save it as UTF-8.") % told) from None
    except OSError as exc:
        told = {"name": name, "error": exc.strerror}
        raise CommandError(_("%(name)s cannot be read: %(error)s.") % told) from None


def readers_told(name: str) -> str:
    """Return a warning when others may read the file `name`, which holds secrets; "" when not, or for `-`."""
    if name == "-" or not Path(name).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return ""
    told = {"name": name, "command": f"chmod 600 {shlex.quote(name)}"}
    return _("Other users of this machine can read %(name)s: run `%(command)s`.") % told


def write_private(name: str, content: str | bytes, *, keep_mode: bool = False) -> None:
    """Write `content` (text as UTF-8) to the file `name` at once and whole, readable by its owner alone.

    keep_mode: a file that is there keeps its owner, and whom it lets in. Raises CommandError.
    """
    path = Path(name).resolve()  # through a link to the file itself
    if path.is_dir():
        raise CommandError(_("%(name)s is a directory; name a file in it.") % {"name": name})
    if path.exists() and not path.is_file():
        raise CommandError(_("%(name)s is no plain file; use - for standard output.") % {"name": name})
    try:
        # Beside the file, since a rename is atomic within a file system only; mode 0600 from the beginning.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                if keep_mode and path.exists():
                    _let_in_like(path, file.fileno())
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as exc:
        told = {"name": name, "error": exc.strerror}
        raise CommandError(_("%(name)s cannot be written: %(error)s.") % told) from None


def _let_in_like(path: Path, descriptor: int) -> None:
    like = path.stat()
    with suppress(PermissionError):
        os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
