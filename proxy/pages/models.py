"""Models."""

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from proxy.pages.filters import read_filters
from proxy.pages.page import answer, dashboard_page


@dashboard_page
def models(request: HttpRequest) -> HttpResponse:
    """Show the page."""
    moment = datetime.now(UTC)
    return answer(request, "models", _("Models"), filters=read_filters(request, moment), tables=[], moment=moment)
