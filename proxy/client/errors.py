"""Our own errors, in the shape of Gemini's, so that every SDK shows them properly."""

from typing import Any

from django.http import JsonResponse


class RequestRefused(Exception):
    """The request never reaches the upstream. status: HTTP; code: Google's name for it; message: for the client."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def error_response(status: int, code: str, message: str, details: list[dict[str, Any]] | None = None) -> JsonResponse:
    """Return `{"error": {"code", "status", "message", "details"}}` with the HTTP status `status`."""
    error = {"code": status, "message": message, "status": code, "details": details or []}
    return JsonResponse({"error": error}, status=status)
