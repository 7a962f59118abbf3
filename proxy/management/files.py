"""Reading and writing files in commands. Writes are atomic; every error is one clear sentence."""

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
    """Return the text of the file `name`, or of standard input for `-`. Raises CommandError.

    Accepts UTF-8, and UTF-16 with the byte order mark that Windows editors write.
    """
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except FileNotFoundError:
        raise CommandError(_("%(name)s does not exist.") % {"name": name}) from None
    except IsADirectoryError:
        raise CommandError(_("%(name)s is a directory, not a file.") % {"name": name}) from None
    except UnicodeDecodeError as exc:
        words = {"name": name, "byte": exc.start}
        raise CommandError(_("%(name)s is not UTF-8 text (byte %(byte)d). Save it as UTF-8.") % words) from None
    except OSError as exc:
        words = {"name": name, "error": exc.strerror}
        raise CommandError(_("%(name)s cannot be read: %(error)s.") % words) from None


def permission_warning(name: str) -> str:
    """Return a warning if other users can read the file `name`, which contains secrets; otherwise, and for `-`, ""."""
    if name == "-" or not Path(name).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return ""
    words = {"name": name, "command": f"chmod 600 {shlex.quote(name)}"}
    return _("Other users of this machine can read %(name)s: run `%(command)s`.") % words


def write_private(name: str, content: str | bytes, *, keep_mode: bool = False) -> None:
    """Atomically write `content` (text as UTF-8) to the file `name`, readable by its owner only.

    keep_mode: an existing file keeps its owner and permissions. Raises CommandError.
    """
    path = Path(name).resolve()  # replaces the target of a link, not the link
    if path.is_dir():
        raise CommandError(_("%(name)s is a directory, not a file.") % {"name": name})
    if path.exists() and not path.is_file():
        raise CommandError(_("%(name)s is not a regular file. Use - for standard output.") % {"name": name})
    try:
        # In the same folder, because a rename is atomic only within one file system. Created with mode 0600.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                if keep_mode and path.exists():
                    _copy_permissions(path, file.fileno())
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as exc:
        words = {"name": name, "error": exc.strerror}
        raise CommandError(_("%(name)s cannot be written: %(error)s.") % words) from None


def _copy_permissions(path: Path, descriptor: int) -> None:
    status = path.stat()
    with suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
