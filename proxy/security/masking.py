"""Masks keys and tokens in everything that leaves the service: log lines, error pages, answers. No Django."""

import logging
import re
from collections.abc import Sequence

# Both formats of Gemini keys: AIza… (39 characters) and AQ.… (of any length).
KEY_SHAPE = re.compile(r"AIza[\w-]{35}|AQ\.[\w-]{20,}")
# curl users send their token as `?key=…`, and servers log whole request lines.
_CREDENTIAL_IN_URL = re.compile(r"([?&](?:key|access_token)=)[^&\s\"'<>]+", re.IGNORECASE)


def last_four(secret: str) -> str:
    """Return a secret as people see it: `…` and its last four characters, or only `…` if it is short."""
    return "…" + secret[-4:] if len(secret) > 8 else "…"


def mask_text(text: str, *secrets: str) -> str:
    """Return `text` with every Gemini key, every credential in a URL and each of `secrets` masked."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, last_four(secret))
    text = _CREDENTIAL_IN_URL.sub(r"\1…", text)
    return KEY_SHAPE.sub(lambda found: last_four(found[0]), text)


def mask_bytes(content: bytes, secret: bytes) -> bytes:
    """Return `content`, of the same length, with all but the last four characters of `secret` as asterisks."""
    return content.replace(secret, b"*" * (len(secret) - 4) + secret[-4:])


class MaskingFormatter(logging.Formatter):
    """A log formatter that masks the whole line, including its traceback. secrets: more texts to mask."""

    def __init__(self, fmt: str, secrets: Sequence[str] = ()) -> None:
        super().__init__(fmt, datefmt="%Y-%m-%d %H:%M:%S %z")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return mask_text(super().format(record), *self._secrets)
