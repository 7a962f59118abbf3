"""Django's error reports with keys and tokens masked, even when DEBUG is on."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.safestring import SafeString, mark_safe
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from proxy.security.masking import mask_text


class NoPostedData(SafeExceptionReporterFilter):
    """Always leaves out posted data, since people paste keys of any format."""

    def is_active(self, request: HttpRequest | None) -> bool:
        return True

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return {}


class MaskingReporter(ExceptionReporter):
    """Django's error report without local variables, which may contain keys, and with its text masked."""

    def get_traceback_frames(self) -> list[dict[str, Any]]:
        return [{**frame, "vars": []} for frame in super().get_traceback_frames()]

    def get_traceback_html(self) -> SafeString:
        return mark_safe(mask_text(super().get_traceback_html(), settings.PLACEHOLDER_TOKEN))  # noqa: S308  # was safe

    def get_traceback_text(self) -> SafeString:
        return mark_safe(mask_text(super().get_traceback_text(), settings.PLACEHOLDER_TOKEN))  # noqa: S308  # was safe
