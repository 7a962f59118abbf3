"""Logins to the pages: who failed too often waits for some minutes.

django-axes asks and tells. An account is locked for the address that failed, never for all, so that no stranger shuts
out its owner; and an address is locked that fails with many accounts. No name that was typed is stored or logged, since
people type passwords there by mistake.
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

FAILURES_OF_ADDRESS = 20  # with all accounts together; settings.AXES_FAILURE_LIMIT is for one account
AT_ONCE = 8  # that a worker process takes on; their passwords are hashed one after the other
_places = BoundedSemaphore(AT_ONCE)


class ThrottledBackend(AxesStandaloneBackend, ModelBackend):  # type: ignore[misc]  # axes has no types
    """Django's own backend behind the lock. Without a request, as in a shell, nobody is locked."""

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
    """Counts failures as rows of an address and an account, the latter as a hash. A row lives as long as it counts."""

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
        """Forgive the account, not the address: a guesser may have an account as well."""
        row = {"username": _hashed(user.get_username()), "ip_address": request.axes_ip_address}
        AccessAttempt.objects.filter(**row).delete()

    def user_logged_out(self, *args: Any, **kwargs: Any) -> None:
        """Keep no log of it."""

    def is_locked(self, request: Any, credentials: dict[str, Any] | None = None) -> bool:
        return locked_until(request, credentials) is not None


def locked_until(request: Any, credentials: dict[str, Any] | None) -> datetime | None:
    """Return when a locked account or address is let in again, None when it is not locked. One query."""
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
    """Return the client's address, of IPv6 the network of 64 bits that a household has; None for a Unix socket."""
    address = client_address(request.META, settings.TRUSTED_PROXIES)
    if isinstance(address, IPv6Address):
        address = IPv6Network((address, 64), strict=False).network_address
    return str(address) if address else None


def locked_out(request: Any, _: HttpResponse | None, credentials: dict[str, Any] | None) -> HttpResponse:
    """Return the page for those who have to wait, with 429 and Retry-After. It costs little, since many may ask."""
    if hasattr(request, "is_crowded_out"):
        return _refused(gettext("Too many logins at once. Try again in a minute."), 60)
    until = locked_until(request, credentials or {"username": request.POST.get("username")}) or now()
    seconds = max(math.ceil((until - now()).total_seconds()), 1)
    minutes = math.ceil(seconds / 60)
    told = ngettext(
        "Too many failed logins. Try again in %(count)d minute.",
        "Too many failed logins. Try again in %(count)d minutes.",
        minutes,
    )
    return _refused(told % {"count": minutes}, seconds)


def _refused(told: str, seconds: int) -> HttpResponse:
    return HttpResponse(f"{told}\n", "text/plain; charset=utf-8", status=429, headers={"Retry-After": str(seconds)})


def _last_of(limit: int, failures: Iterable[tuple[int, datetime]]) -> datetime | None:
    """Return the moment of the failures that reach `limit` together with all later ones; None if there are fewer."""
    count = 0
    for number, moment in failures:  # the latest first
        count += number
        if count >= limit:
            return moment
    return None


def _hashed(name: str) -> str:
    return salted_hmac("proxy.accounts.logins", name, algorithm="sha256").hexdigest()


def _shown(name: str) -> str:
    """Return an account as the log calls it: by its name if it exists, in one short line."""
    if not name or not get_user_model()._default_manager.filter(username=name).exists():
        return "an unknown account"
    return "".join(filter(str.isprintable, mask_text(name, settings.PLACEHOLDER_TOKEN)))[:50]
