"""The error that a client gets when its request could not be answered."""

import logging
import math
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.http import JsonResponse

from proxy.client.errors import RequestRefused, error_response
from proxy.client.request import without_token
from proxy.journey import DeadlineExceeded
from proxy.ledger import LedgerUnavailable
from proxy.ledger.claims import Overloaded, PoolExhausted, ProjectExhausted, SeveralProjects, UnknownUpload
from proxy.lists import BadPageToken
from proxy.upstream.exchange import AnswerLost, UpstreamUnreachable

logger = logging.getLogger(__name__)

# Clients should not retry by themselves after a longer wait; openai's clients draw the line at the same point.
_LONGEST_RETRY_SECONDS = 120
_RETRY_DATABASE_SECONDS = 5


def response_for(exc: Exception, moment: datetime) -> JsonResponse:
    """Return the error response for `exc`. An unexpected exception is logged; the client learns nothing of it."""
    if isinstance(exc, RequestRefused):
        return error_response(exc.status, exc.code, exc.message)
    if isinstance(exc, PoolExhausted):
        return _exhausted_response(exc, moment)
    if isinstance(exc, BadPageToken):
        return error_response(400, "INVALID_ARGUMENT", str(exc))
    if isinstance(exc, UnknownUpload):
        return response_for(without_token(), moment)
    if isinstance(exc, SeveralProjects):
        return error_response(400, "INVALID_ARGUMENT", f"{exc} Upload or create them again, one after the other.")
    if isinstance(exc, UpstreamUnreachable):
        logger.error("The Gemini API cannot be reached: %s", exc)
        return error_response(502, "UNAVAILABLE", "The key manager cannot reach the Gemini API.")
    if isinstance(exc, AnswerLost):
        logger.error("%s", exc)
        status, code = (504, "DEADLINE_EXCEEDED") if exc.is_timeout else (502, "UNAVAILABLE")
        return error_response(status, code, str(exc))
    if isinstance(exc, DeadlineExceeded):
        message = "The request timed out after failing over from key to key."
        return error_response(504, "DEADLINE_EXCEEDED", message)
    if isinstance(exc, LedgerUnavailable):
        response = error_response(503, "UNAVAILABLE", str(exc))
        response["Retry-After"] = str(_RETRY_DATABASE_SECONDS)
        return response
    logger.error("The relay failed.", exc_info=exc)
    return error_response(500, "INTERNAL", "The key manager failed. Its log has the details.")


def _exhausted_response(exhausted: PoolExhausted, moment: datetime) -> JsonResponse:
    """Return the error for a pool with no key left; it says when the next one is available, for people and programs."""
    model_name = exhausted.model_name
    owner = ""
    if isinstance(exhausted, ProjectExhausted):
        owner = f"{exhausted.resource} belongs to a Google project "
    if owner and not exhausted.has_keys:
        message = (
            f"{owner}without a usable key. Its keys are disabled, bad or deleted; the dashboard shows the reasons."
        )
        return error_response(503, "UNAVAILABLE", message)
    if not exhausted.has_keys:
        message = "The pool has no usable key. Add keys in the admin, or enable or revive some."
        return error_response(503, "UNAVAILABLE", message)
    if exhausted.opens_at is None:
        keys = f"{owner}of which no key" if owner else "No key"
        message = f"{keys} can be used for {model_name} until one is revived manually. The dashboard shows the reasons."
        response = _exhausted(message, [])
        response["x-should-retry"] = "false"
        return response
    seconds = max(1, math.ceil((exhausted.opens_at - moment).total_seconds()))
    if isinstance(exhausted, Overloaded):
        message = f"The Gemini API is overloaded for {model_name}. Try again in {in_words(seconds)}."
    else:
        keys = f"{owner}whose keys" if owner else "All keys"
        message = (
            f"{keys} for {model_name} are rate-limited. The next one is available in {in_words(seconds)}, "
            f"at {exhausted.opens_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        )
    retry_info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}
    response = _exhausted(message, [retry_info])
    response["Retry-After"] = str(seconds)
    if seconds > _LONGEST_RETRY_SECONDS:
        response["x-should-retry"] = "false"
    return response


def in_words(seconds: int) -> str:
    """Return a duration in words: "40 seconds", "2 minutes 5 seconds", "3 hours 20 minutes"."""
    hours, minutes = divmod(seconds // 60, 60)
    parts = [(hours, "hour"), (minutes, "minute"), (0 if hours else seconds % 60, "second")]
    return " ".join(f"{number} {unit}{'s' if number > 1 else ''}" for number, unit in parts if number) or "a moment"


def _exhausted(message: str, details: list[dict[str, Any]]) -> JsonResponse:
    status = settings.EXHAUSTED_STATUS
    return error_response(status, "RESOURCE_EXHAUSTED" if status == 429 else "UNAVAILABLE", message, details)
