"""Which error a client gets when its request could not be answered."""

import logging
import math
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.http import JsonResponse

from proxy.client.errors import RequestRefused, error_response
from proxy.ledger import LedgerUnavailable
from proxy.ledger.claims import Overloaded, PoolExhausted
from proxy.relay import DeadlineExceeded
from proxy.upstream.exchange import AnswerLost, UpstreamUnreachable

logger = logging.getLogger(__name__)

# Waiting longer than this is for people; openai's clients give up at the same point.
_LONGEST_RETRY_SECONDS = 120


def response_for(exc: Exception, moment: datetime) -> JsonResponse:
    """Return what the client gets for `exc`; what nobody foresaw is logged, and the client told no more than that."""
    if isinstance(exc, RequestRefused):
        return error_response(exc.status, exc.code, exc.message)
    if isinstance(exc, PoolExhausted):
        return _exhausted_response(exc, moment)
    if isinstance(exc, UpstreamUnreachable):
        logger.error("The Gemini API is out of reach: %s", exc)
        return error_response(502, "UNAVAILABLE", "The Gemini API is out of reach from this key manager.")
    if isinstance(exc, AnswerLost):
        logger.error("%s", exc)
        status, code = (504, "DEADLINE_EXCEEDED") if exc.is_timeout else (502, "UNAVAILABLE")
        return error_response(status, code, str(exc))
    if isinstance(exc, DeadlineExceeded):
        return error_response(504, "DEADLINE_EXCEEDED", "Too many keys failed over; the time for this request is up.")
    if isinstance(exc, LedgerUnavailable):
        return error_response(503, "UNAVAILABLE", str(exc))
    logger.error("The relay failed.", exc_info=exc)
    return error_response(500, "INTERNAL", "The key manager failed; its log says why.")


def _exhausted_response(exhausted: PoolExhausted, moment: datetime) -> JsonResponse:
    """Return the answer for a pool without a key left: when the first comes back, in words and in machine form."""
    model_name = exhausted.model_name
    if not exhausted.has_keys:
        return error_response(
            503, "UNAVAILABLE", "There is no usable key in the pool: add keys, or revive or enable some, in the admin."
        )
    if exhausted.opens_at is None:
        message = (
            f"No key may be asked for {model_name}, and none comes back by itself: see the dashboard for the reasons."
        )
        response = _exhausted(message, [])
        response["x-should-retry"] = "false"
        return response
    seconds = max(1, math.ceil((exhausted.opens_at - moment).total_seconds()))
    if isinstance(exhausted, Overloaded):
        message = f"The Gemini API has too much to do for {model_name}. Try again in {in_words(seconds)}."
    else:
        message = (
            f"All keys for {model_name} are resting. The first comes back in {in_words(seconds)}, "
            f"at {exhausted.opens_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        )
    retry_info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}
    response = _exhausted(message, [retry_info])
    response["Retry-After"] = str(seconds)
    if seconds > _LONGEST_RETRY_SECONDS:
        response["x-should-retry"] = "false"
    return response


def in_words(seconds: int) -> str:
    """Return a duration as people say it: "40 seconds", "2 minutes 5 seconds", "3 hours 20 minutes"."""
    hours, minutes = divmod(seconds // 60, 60)
    parts = [(hours, "hour"), (minutes, "minute"), (0 if hours else seconds % 60, "second")]
    return " ".join(f"{number} {unit}{'s' if number > 1 else ''}" for number, unit in parts if number) or "a moment"


def _exhausted(message: str, details: list[dict[str, Any]]) -> JsonResponse:
    status = settings.EXHAUSTED_STATUS
    return error_response(status, "RESOURCE_EXHAUSTED" if status == 429 else "UNAVAILABLE", message, details)
