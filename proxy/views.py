"""The catch-all view of the relay, and the health checks."""

import json
import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.utils.translation import gettext
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from proxy.answer import Answer
from proxy.client import draining
from proxy.client.cors import let_page_read, preflight_response
from proxy.client.request import read_call, request_id_of
from proxy.client.websocket import key_of, wants_websocket
from proxy.conversations import Conversations
from proxy.dashboard import reports
from proxy.error_responses import response_for
from proxy.greenlets import ClientWatch
from proxy.journey import Journey
from proxy.ledger import ledger
from proxy.ledger.claims import ClaimRequest, PoolExhausted
from proxy.ledger.history import CLIENT_LEFT
from proxy.live.frames import accept_for
from proxy.live.session import Session
from proxy.models import NO_MODEL
from proxy.pool.key_check import BadKeysWatch
from proxy.relay import relay
from proxy.upstream.exchange import Call, Upstream

upstream = Upstream(
    settings.UPSTREAM_URL,
    connect_seconds=settings.CONNECT_TIMEOUT_SECONDS,
    read_seconds=settings.READ_TIMEOUT_SECONDS,
)


# How long the database may take for a small transaction before the service counts as not ready.
_PROBE_SECONDS = 3

client_watch = ClientWatch()
conversations = Conversations(settings.DATA_DIR / "conversations")
bad_keys_watch = BadKeysWatch()


@csrf_exempt
def relay_view(request: HttpRequest) -> HttpResponseBase:
    """Relay a request to the Gemini API and stream its answer back; see `relay.py`."""
    if preflight := preflight_response(request):
        return preflight
    client_socket = request.META.get("gunicorn.socket")
    client_watch.start(client_socket)
    bad_keys_watch.look()
    call: Call | None = None
    journey = Journey(request_id_of(request), settings.DEADLINE_SECONDS, settings.MAX_WAIT_SECONDS)
    try:
        with closing(read_call(request)) as call:
            if wants_websocket(request):
                return _live_response(request, call, journey)
            journey.shorten(call.timeout_seconds)
            journey.home = conversations.project_of(call.beginnings)
            answer = relay(call, ledger=ledger, upstream=upstream, journey=journey)
            if answer.status == 200:
                conversations.remember(call.beginnings, journey.project_id)
    except BaseException as exc:
        client_watch.stop(client_socket)
        if not isinstance(exc, Exception):
            if call:
                journey.end(call, CLIENT_LEFT, ledger)
            raise
        response: HttpResponseBase = response_for(exc, ledger.moment())
        if call:
            journey.end(call, response.status_code, ledger, is_refused=isinstance(exc, PoolExhausted))
    else:
        response = RelayedResponse(answer, client_socket, partial(journey.end, call, answer.status, ledger))
    _add_headers(response, journey)
    let_page_read(response, request.META.get("HTTP_ORIGIN", ""))
    return response


def _add_headers(response: HttpResponseBase, journey: Journey) -> None:
    """Describe the request's way through the relay in headers; the key's name only if SHOW_KEY_NAMES is on."""
    response.headers["X-Request-Id"] = journey.request_id
    response.headers["X-Keys-Tried"] = str(journey.keys_tried)
    response.headers["X-Waited-Seconds"] = f"{journey.waited_seconds:.3f}"
    if settings.SHOW_KEY_NAMES and journey.key_label:
        response.headers["X-Key"] = (
            " ".join(journey.key_label.replace("…", "...").split()).encode("ascii", "replace").decode()
        )


def _live_response(request: HttpRequest, call: Call, journey: Journey) -> HttpResponseBase:
    """Switch to a WebSocket, and run the session as the body of the response."""
    key = key_of(request, call.target)
    if call.has_no_token:  # a refusal must come before the upgrade
        claim, _ = ledger.claim(ClaimRequest(NO_MODEL, None, resources=call.resources, has_no_token=True))
        ledger.give_back(claim)
    client_socket = request.META["gunicorn.socket"]
    client_watch.stop(client_socket)
    session = Session(
        call,
        client_socket,
        ledger=ledger,
        upstream=upstream,
        journey=journey,
        setup_seconds=settings.CLIENT_TIMEOUT_SECONDS,
        explain=lambda exc: str(json.loads(response_for(exc, ledger.moment()).content)["error"]["message"]),
    )
    return LiveResponse(session, key)


class LiveResponse(StreamingHttpResponse):
    """A session of the Live API."""

    def __init__(self, session: Session, key: str) -> None:
        super().__init__(session.bytes_of_answer(), status=101)
        del self.headers["Content-Type"]
        self.headers["Upgrade"], self.headers["Connection"] = "websocket", "Upgrade"
        self.headers["Sec-WebSocket-Accept"] = accept_for(key)

    def close(self) -> None:
        """Close the response, without sending Django's `request_finished`, as `RelayedResponse` does."""
        self.closed = True


class RelayedResponse(StreamingHttpResponse):
    """An answer that is streamed to the client. The client is watched until the response is closed."""

    def __init__(self, answer: Answer, client_socket: socket.socket | None, end: Callable[..., None]) -> None:
        super().__init__(answer.body, status=answer.status)
        self._answer = answer
        self._client_socket = client_socket
        self._end = end
        del self.headers["Content-Type"]
        for name, value in answer.headers:
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self.headers["X-Accel-Buffering"] = "no"
        # A browser must not run the upstream's content as if it were one of our pages.
        self.headers["X-Content-Type-Options"] = "nosniff"
        self.headers["Content-Security-Policy"] = "sandbox"

    def close(self) -> None:
        """Close the body, without sending Django's `request_finished`.

        That signal looks for database connections to close. The relay has none, and looking took 6 % of its time.
        """
        client_watch.stop(self._client_socket)
        self._answer.body.close()
        self._end(tokens=self._answer.body.meter.tokens)
        self.closed = True


@require_safe
def healthz(_: HttpRequest) -> HttpResponse:
    """Return 200 while the process is up."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(_: HttpRequest) -> HttpResponse:
    """Return 200 if requests can be answered, otherwise 503 with the reasons.

    They are: the service is stopping, the database, its migrations, no usable key.
    """
    problems = [gettext("The service is stopping.")] if draining.is_draining() else reports.obstacles()
    if not problems and not ledger.is_writing(within_seconds=_PROBE_SECONDS):
        problems = [gettext("The database accepts no changes.")]
    status = {"status": "not ready", "problems": problems} if problems else {"status": "ready"}
    return JsonResponse(status, status=503 if problems else 200)
