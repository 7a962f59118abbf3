"""Asking the API about keys, without spending quota: `models.list`, with requests, off the hot path."""

import enum
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime

import requests
from django.conf import settings

from proxy.gemini import credential_for
from proxy.masking import mask_bytes
from proxy.models import ApiKey
from proxy.refusals import message_in, read_fault, read_refusal

_AT_ONCE = 16


class Verdict(enum.StrEnum):
    """What asking about a key came to."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"  # no answer, or one that says nothing about the key


def check_keys(keys: Iterable[ApiKey], moment: datetime) -> Iterator[tuple[ApiKey, Verdict, str]]:
    """Ask about each key, 16 at once, and yield it with the verdict and a reason as the answers come in.

    Bad keys leave the rotation; bad ones that work again come back. A quota that is spent is no fault.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = {pool.submit(_ask, key.secret or ""): key for key in keys}
        for answer in as_completed(asked):
            key = asked[answer]
            status, content = answer.result()
            content = mask_bytes(content, (key.secret or "").encode())
            rows = ApiKey.objects.filter(id=key.pk)
            if fault := read_fault(status, content):
                reason = message_in(content)
                rows.mark_bad(fault, reason, moment)
                yield key, Verdict.BAD, f"{fault}: {reason}"
            elif status == 200 or read_refusal(status, content):
                if key.fault:
                    rows.change(moment, fault="", fault_reason="", fault_since=None)
                yield key, Verdict.GOOD, ""
            else:
                yield key, Verdict.UNKNOWN, f"HTTP {status}" if status else "no answer"


def _ask(secret: str) -> tuple[int, bytes]:
    """Return status and body of a list of models; (0, b"") when no answer came."""
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
