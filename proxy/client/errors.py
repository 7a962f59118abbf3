"""Our own errors, in Gemini's format, so that every SDK understands them."""

from typing import Any

from django.http import JsonResponse


class RequestRefused(Exception):
    """The request is not sent upstream.

    status: the HTTP status. code: Google's name for it, such as "INVALID_ARGUMENT". message: for the client.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def error_response(status: int, code: str, message: str, details: list[dict[str, Any]] | None = None) -> JsonResponse:
    """Return `{"error": {"code", "status", "message", "details"}}` with the HTTP status `status`."""
    error = {"code": status, "message": message, "status": code, "details": details or []}
    return JsonResponse({"error": error}, status=status)
