"""What people see when something breaks: Django's reports, with keys and tokens masked (also with DEBUG on)."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.safestring import SafeString, mark_safe
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from proxy.security.masking import mask_text


class NoPostedData(SafeExceptionReporterFilter):
    """Leaves out what was posted, DEBUG or not: people paste keys of any shape."""

    def is_active(self, request: HttpRequest | None) -> bool:
        return True

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return {}


class MaskingReporter(ExceptionReporter):
    """Django's error report without local variables, which hold keys, its finished text masked."""

    def get_traceback_frames(self) -> list[dict[str, Any]]:
        return [{**frame, "vars": []} for frame in super().get_traceback_frames()]

    def get_traceback_html(self) -> SafeString:
        return mark_safe(mask_text(super().get_traceback_html(), settings.PLACEHOLDER_TOKEN))  # noqa: S308  # was safe

    def get_traceback_text(self) -> SafeString:
        return mark_safe(mask_text(super().get_traceback_text(), settings.PLACEHOLDER_TOKEN))  # noqa: S308  # was safe
