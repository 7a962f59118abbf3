"""Lists of keys as people keep them: key.txt, or lines pasted into the admin. Pure functions."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from proxy.masking import KEY_SHAPE

# What can travel in a header, and is no sentence.
POSSIBLE_SECRET = re.compile(r"[!-~]{8,300}")


class KeyLines(NamedTuple):
    """What was found in a text. secrets: in order, each once. malformed, odd: numbers of lines, from 1.

    odd: lines whose key is taken although it has neither of Google's shapes.
    """

    secrets: list[str]
    malformed: list[int]
    odd: list[int]
    repeated: int


def read_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of `text` that should be a key, each with its number, from 1.

    Blank lines, `#` comments, CRLF, a BOM and stray spaces do not matter.
    """
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        secret = re.sub(r"\s#.*", "", line).strip()
        if secret and not secret.startswith("#"):
            yield number, secret


def read_keys(text: str) -> KeyLines:
    """Return the keys in `text`, one a line."""
    secrets: dict[str, None] = {}
    malformed, odd, repeated = [], [], 0
    for number, secret in read_lines(text):
        if not POSSIBLE_SECRET.fullmatch(secret):
            malformed.append(number)
        elif secret in secrets:
            repeated += 1
        else:
            if not KEY_SHAPE.fullmatch(secret):
                odd.append(number)
            secrets[secret] = None
    return KeyLines(list(secrets), malformed, odd, repeated)
