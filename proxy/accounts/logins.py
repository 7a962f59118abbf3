"""Login throttling: after too many failures, further logins are refused for some minutes.

Built on django-axes. An account is locked only for the address that failed, so that nobody can lock out its owner. An
address that fails with many accounts is locked for all of them. Names as typed are never stored or logged, since people
type passwords there by mistake.
"""

import logging
import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import IPv6Address, IPv6Network
from threading import BoundedSemaphore
from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac
from django.utils.timezone import now
from django.utils.translation import gettext, ngettext

from proxy.client.address import client_address
from proxy.security.masking import mask_text

logger = logging.getLogger(__name__)

FAILURES_OF_ADDRESS = 20  # for all accounts together; settings.AXES_FAILURE_LIMIT is for one account
AT_ONCE = 8  # logins in a worker process at once; their passwords are hashed one after another
_places = BoundedSemaphore(AT_ONCE)


class ThrottledBackend(AxesStandaloneBackend, ModelBackend):  # type: ignore[misc]  # axes has no types
    """Django's own backend with throttling. Calls without a request, as in a shell, are not throttled."""

    def authenticate(
        self, request: Any, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        if request is None:
            return ModelBackend.authenticate(self, request, username, password, **kwargs)
        if not _places.acquire(blocking=False):
            request.axes_locked_out = request.is_crowded_out = True
            raise PermissionDenied
        try:
            super().authenticate(request, username, password, **kwargs)  # raises PermissionDenied when locked
            return ModelBackend.authenticate(self, request, username, password, **kwargs)
        finally:
            _places.release()


class LoginFailures(AxesDatabaseHandler):  # type: ignore[misc]
    """Counts failures in a row for each address and (hashed) account. Rows are deleted when they no longer count."""

    def user_login_failed(self, sender: Any, credentials: dict[str, Any], request: Any = None, **kwargs: Any) -> None:
        if request is None or request.axes_locked_out:
            return
        moment = now()
        name, address = str(credentials.get("username") or ""), request.axes_ip_address
        row = {"username": _hashed(name), "ip_address": address, "user_agent": ""}
        with transaction.atomic():
            AccessAttempt.objects.filter(attempt_time__lte=moment - settings.AXES_COOLOFF_TIME).delete()
            AccessAttempt.objects.get_or_create(**row, defaults={"failures_since_start": 0})
            failures = F("failures_since_start") + 1
            AccessAttempt.objects.filter(**row).update(failures_since_start=failures, attempt_time=moment)
        logger.warning("A login as %s from %s failed.", _shown(name), address or "a Unix socket")
        if self.is_locked(request, credentials):
            request.axes_locked_out, request.axes_credentials = True, credentials
            minutes = settings.AXES_COOLOFF_TIME // timedelta(minutes=1)
            logger.warning("Logins as %s from %s are refused for %d minutes.", _shown(name), address, minutes)

    def user_logged_in(self, sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
        """Reset the failures of the account, but not of the address, since an attacker may also have an account."""
        row = {"username": _hashed(user.get_username()), "ip_address": request.axes_ip_address}
        AccessAttempt.objects.filter(**row).delete()

    def user_logged_out(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: logouts are not logged."""

    def is_locked(self, request: Any, credentials: dict[str, Any] | None = None) -> bool:
        return locked_until(request, credentials) is not None


def locked_until(request: Any, credentials: dict[str, Any] | None) -> datetime | None:
    """Return when the lock of an account or address ends; None if it is not locked. One query."""
    since = now() - settings.AXES_COOLOFF_TIME
    rows = AccessAttempt.objects.filter(ip_address=request.axes_ip_address, attempt_time__gt=since)
    failures = list(rows.order_by("-attempt_time").values_list("username", "failures_since_start", "attempt_time"))
    account = _hashed(str((credentials or {}).get("username") or ""))
    ends = [
        _last_of(settings.AXES_FAILURE_LIMIT, [row[1:] for row in failures if row[0] == account]),
        _last_of(FAILURES_OF_ADDRESS, [row[1:] for row in failures]),
    ]
    return max((end + settings.AXES_COOLOFF_TIME for end in ends if end), default=None)


def address_of(request: HttpRequest) -> str | None:
    """Return the client's address; for IPv6 its /64 network, which a household has; None for a Unix socket."""
    address = client_address(request.META, settings.TRUSTED_PROXIES)
    if isinstance(address, IPv6Address):
        address = IPv6Network((address, 64), strict=False).network_address
    return str(address) if address else None


def locked_out(request: Any, _: HttpResponse | None, credentials: dict[str, Any] | None) -> HttpResponse:
    """Return a 429 with Retry-After, as plain text, since an attacker may request it often."""
    if hasattr(request, "is_crowded_out"):
        return _refused(gettext("Too many logins at once. Try again in a minute."), 60)
    until = locked_until(request, credentials or {"username": request.POST.get("username")}) or now()
    seconds = max(math.ceil((until - now()).total_seconds()), 1)
    minutes = math.ceil(seconds / 60)
    text = ngettext(
        "Too many failed logins. Try again in %(count)d minute.",
        "Too many failed logins. Try again in %(count)d minutes.",
        minutes,
    )
    return _refused(text % {"count": minutes}, seconds)


def _refused(text: str, seconds: int) -> HttpResponse:
    return HttpResponse(f"{text}\n", "text/plain; charset=utf-8", status=429, headers={"Retry-After": str(seconds)})


def _last_of(limit: int, failures: Iterable[tuple[int, datetime]]) -> datetime | None:
    """Return the moment since which there were at least `limit` failures; None if there were fewer."""
    count = 0
    for number, moment in failures:  # the latest first
        count += number
        if count >= limit:
            return moment
    return None


def _hashed(name: str) -> str:
    return salted_hmac("proxy.accounts.logins", name, algorithm="sha256").hexdigest()


def _shown(name: str) -> str:
    """Return an account's name for the log, if the account exists."""
    if not name or not get_user_model()._default_manager.filter(username=name).exists():
        return "an unknown account"
    return "".join(filter(str.isprintable, mask_text(name, settings.PLACEHOLDER_TOKEN)))[:50]
