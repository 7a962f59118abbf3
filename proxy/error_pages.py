"""What people see when something breaks: Django's reports, with keys and tokens masked (also with DEBUG on)."""

from django.conf import settings
from django.utils.safestring import SafeString, mark_safe
from django.views.debug import ExceptionReporter

from proxy.masking import mask_text


class MaskingReporter(ExceptionReporter):
    """Django's error report, its finished text masked: request data and local variables hold secrets too."""

    def get_traceback_html(self) -> SafeString:
        return mark_safe(mask_text(super().get_traceback_html(), settings.PLACEHOLDER_TOKEN))  # noqa: S308  # was safe

    def get_traceback_text(self) -> SafeString:
        return mark_safe(mask_text(super().get_traceback_text(), settings.PLACEHOLDER_TOKEN))  # noqa: S308  # was safe
