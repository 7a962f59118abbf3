"""Limits for requests to our own pages: forms that fit in memory, no files, and no NUL in a query."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.translation import gettext as _

# Enough for a login or a change of the language. Users who are logged in can also paste keys.
MOST_BYTES_OF_STRANGERS = 64 * 1024


def limit_bodies(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Refuse a body that is too large before it is read. Must follow the middleware that sets the user.

    A body without a length needs no limit, since Django does not read it.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        length = request.META.get("CONTENT_LENGTH") or ""
        size = int(length) if length.isdecimal() else 0
        most = MOST_BYTES_OF_STRANGERS
        if size > most and request.user.is_authenticated:
            most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if size <= most:
            return get_response(request)
        text = _("This form is larger than %(size)d kB. Submit it in smaller parts.") % {"size": most // 1024}
        return HttpResponse(text, status=413, content_type="text/plain; charset=utf-8")

    return middleware


def drop_nuls(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Remove NULs from the query. PostgreSQL refuses them in text, and the admin's filters do not check for them."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if "%00" in (query := request.META.get("QUERY_STRING", "")):
            request.META["QUERY_STRING"] = query.replace("%00", "")
        return get_response(request)

    return middleware


class NoFiles(FileUploadHandler):
    """Skips every file in a form, since none of our pages takes one."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Skip the file and continue with the next field."""
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """Never called."""
        return None

    def file_complete(self, file_size: int) -> None:
        """Never called with anything to keep."""
