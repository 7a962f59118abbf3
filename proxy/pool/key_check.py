"""Checks keys with Google by `models.list`, which uses no quota. Off the hot path, so it uses requests."""

import enum
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime

import requests
from django.conf import settings
from django.db import DatabaseError, connection
from django.utils.translation import gettext

from proxy.gemini.credentials import credential_for
from proxy.gemini.refusals import message_in, read_fault, read_refusal
from proxy.models import FAULTS, ApiKey, database_now
from proxy.security.masking import mask_bytes

logger = logging.getLogger(__name__)

_AT_ONCE = 16
_RECHECK_EVERY_SECONDS = 60


class Verdict(enum.StrEnum):
    """The result of a check."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"  # no answer, or one that says nothing about the key

    @property
    def label(self) -> str:
        """The verdict in the reader's language."""
        words = {Verdict.GOOD: gettext("good"), Verdict.BAD: gettext("bad"), Verdict.UNKNOWN: gettext("unknown")}
        return words[self]


def check_keys(keys: Iterable[ApiKey], moment: datetime) -> Iterator[tuple[ApiKey, Verdict, str]]:
    """Check the keys, 16 at a time, and yield each with its verdict and a reason as the answers arrive.

    Keys that turn out bad leave the rotation, and bad keys that work again return to it. An exhausted key is good.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = {pool.submit(_ask, key.secret or ""): key for key in keys}
        for answer in as_completed(answers):
            key = answers[answer]
            status, content = answer.result()
            content = mask_bytes(content, (key.secret or "").encode())
            rows = ApiKey.objects.filter(id=key.pk)
            if fault := read_fault(status, content):
                reason = message_in(content)
                if not rows.mark_bad(fault, reason, moment):
                    rows.put_off_check(moment)
                yield key, Verdict.BAD, f"{dict(FAULTS)[fault]}: {reason}"
            elif status == 200 or read_refusal(status, content):
                if key.fault:
                    rows.clear_fault(moment)
                yield key, Verdict.GOOD, ""
            else:
                yield key, Verdict.UNKNOWN, f"HTTP {status}" if status else gettext("no answer")


class BadKeysWatch:
    """Checks bad keys regularly, so that keys that work again return to the rotation."""

    def __init__(self) -> None:
        self.next_look = 0.0

    def look(self) -> None:
        """Check the keys that are due, in a thread; at most once a minute."""
        if (now := time.monotonic()) >= self.next_look:
            self.next_look = now + _RECHECK_EVERY_SECONDS
            threading.Thread(target=recheck_bad_keys, name="key-check", daemon=True).start()


def recheck_bad_keys() -> None:
    """Check the bad keys that are due, unless another process is doing so."""
    try:
        moment = database_now()
        for key, verdict, _ in check_keys(ApiKey.objects.take_due_checks(moment), moment):
            if verdict is Verdict.GOOD:
                logger.info("%s works again and is back in the rotation.", key.label)
    except DatabaseError as exc:  # tried again in a minute
        logger.warning("Bad keys could not be checked: %s", exc)
    finally:
        connection.close()


def _ask(secret: str) -> tuple[int, bytes]:
    """Return the status and body of a list of models; (0, b"") without an answer."""
    name, value = credential_for(secret, is_openai=False)
    try:
        answer = requests.get(
            f"{settings.UPSTREAM_URL}/v1beta/models?pageSize=1",
            headers={name: value},
            timeout=(settings.CONNECT_TIMEOUT_SECONDS, 30),
            allow_redirects=False,
        )
    except requests.RequestException:
        return 0, b""
    return answer.status_code, answer.content
