"""A key."""

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from proxy.pages.filters import read_filters
from proxy.pages.page import answer, dashboard_page


@dashboard_page
def key(request: HttpRequest, key_id: int) -> HttpResponse:
    """Show the page."""
    moment = datetime.now(UTC)
    return answer(request, "key", _("Key"), filters=read_filters(request, moment), tables=[], moment=moment)
