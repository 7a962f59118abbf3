"""`manage.py newtoken`: write a random client token into `.env`."""

import codecs
import re
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from keymanager.env_file import setting_in, strip
from proxy.management.base import TerminalCommand
from proxy.management.files import write_private

_NAME = "PLACEHOLDER_TOKEN"
_LINE_END = re.compile(r"(\r\n|\r|\n)")
_EXPORT = re.compile(r"[ \t]*(?:export[ \t]+)?")
_COMMENTED = re.compile(rf"[ \t]*#[ \t]*((?:export[ \t]+)?){_NAME}[ \t]*=.*")


class Command(TerminalCommand):
    help = gettext_noop("Write a random client token into .env, and print it.")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.TOKEN_IS_IN_ENVIRONMENT:
            raise CommandError(
                _("PLACEHOLDER_TOKEN is set in the environment, which overrides .env. Change it there, or unset it.")
            )
        path = settings.BASE_DIR / ".env"
        token = "t" + secrets.token_urlsafe(32)  # a leading "-" would make it look like an option
        write_private(str(path), _with_token(_content_of(path), token), keep_mode=True)
        self.stderr.write(_("The new token is in .env. Restart the service, and give the token to your clients:"))
        self.stdout.write(token)


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as exc:
        words = {"name": path, "error": exc.strerror}
        raise CommandError(_("%(name)s cannot be read: %(error)s.") % words) from None


def _with_token(content: bytes, token: str) -> bytes:
    """Return the content of a `.env` file with the token set; everything else, and the encoding, stays the same."""
    boms = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
    bom = next((bom for bom in boms if content.startswith(bom)), b"")
    encoding = boms.get(bom, "utf-8")
    # Bytes that are not in this encoding, such as Latin-1 in a comment, survive unchanged.
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    try:
        text = content.removeprefix(bom).decode(encoding, errors)
    except UnicodeDecodeError:
        raise CommandError(_(".env is not text. Save it as UTF-8.")) from None
    return bom + _with_line(text, token).encode(encoding, errors)


def _with_line(text: str, token: str) -> str:
    """Set the token in each line that sets it; if there is none, in the first commented-out one, or else at the end."""
    setting = f"{_NAME}={token}"
    pieces = _LINE_END.split(text)  # lines and line endings alternate
    is_set = False
    for number in range(0, len(pieces), 2):
        found = setting_in(strip(pieces[number]))
        if found and found[0].upper() == _NAME:
            prefix = _EXPORT.match(pieces[number])
            pieces[number] = (prefix[0] if prefix else "") + setting
            is_set = True
    for number in range(0, len(pieces), 2):
        if not is_set and (comment := _COMMENTED.fullmatch(pieces[number])):
            pieces[number] = comment[1] + setting
            is_set = True
    if not is_set:
        end = next(iter(pieces[1::2]), "\n")
        pieces += [setting + end] if not pieces[-1] else [end, setting + end]
    return "".join(pieces)
