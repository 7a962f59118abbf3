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

from proxy.management.base import TerminalCommand
from proxy.management.files import write_private

_LINE = r"(?m)^([ \t]*(?:export[ \t]+)?){mark}PLACEHOLDER_TOKEN[ \t]*=[^\r\n]*"
_SET = re.compile(_LINE.format(mark=""))
_COMMENTED = re.compile(_LINE.format(mark=r"#[ \t]*((?:export[ \t]+)?)"))


class Command(TerminalCommand):
    help = gettext_noop("Write a random client token into .env, and print it.")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.TOKEN_IS_IN_ENVIRONMENT:
            raise CommandError(
                _("PLACEHOLDER_TOKEN is set in the environment, which wins over .env: change it there, or unset it.")
            )
        path = settings.BASE_DIR / ".env"
        token = "t" + secrets.token_urlsafe(32)  # a token that began with "-" would look like an option
        write_private(str(path), _with_token(_content_of(path), token), keep_mode=True)
        self.stderr.write(_("The token is in .env now. Restart the service, and give the token to your clients:"))
        self.stdout.write(token)


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as exc:
        told = {"name": path, "error": exc.strerror}
        raise CommandError(_("%(name)s cannot be read: %(error)s.") % told) from None


def _with_token(content: bytes, token: str) -> bytes:
    """Return the content of a `.env` with the token in it, and all else as it was, in the same encoding."""
    boms = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
    bom = next((bom for bom in boms if content.startswith(bom)), b"")
    encoding = boms.get(bom, "utf-8")
    # What is not of this encoding, such as Latin-1 in a comment, comes out as it went in.
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    try:
        text = content.removeprefix(bom).decode(encoding, errors)
    except UnicodeDecodeError:
        raise CommandError(_(".env is not text; save it as UTF-8.")) from None
    line = rf"\g<1>PLACEHOLDER_TOKEN={token}"
    # Readers differ in whether the first or the last line of a name counts.
    text, count = _SET.subn(line, text)
    if not count:
        text, count = _COMMENTED.subn(line.replace(">", ">\\g<2>", 1), text, count=1)
    if not count:
        end = "\r\n" if "\r\n" in text else "\n"
        begin = end if text and not text.endswith("\n") else ""
        text += f"{begin}PLACEHOLDER_TOKEN={token}{end}"
    return bom + text.encode(encoding, errors)
