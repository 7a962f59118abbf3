"""HttpRequest in, response out."""

import logging
from datetime import UTC, datetime

from django.conf import settings
from django.contrib.admin import site
from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from proxy import reports
from proxy.errors import RequestRefused, error_response, exhausted_response
from proxy.incoming import read_call
from proxy.ledger import LedgerUnavailable, ledger
from proxy.posting import PoolExhausted
from proxy.quota import next_reset
from proxy.relay import DeadlineExceeded, relay
from proxy.upstream import AnswerLost, Upstream, UpstreamUnreachable

logger = logging.getLogger(__name__)

upstream = Upstream(
    settings.UPSTREAM_URL,
    connect_seconds=settings.CONNECT_TIMEOUT_SECONDS,
    read_seconds=settings.READ_TIMEOUT_SECONDS,
)


@csrf_exempt
def relay_view(request: HttpRequest) -> HttpResponseBase:
    """Answer any method and path that is not ours with the upstream's answer; see `relay.py`."""
    try:
        call = read_call(request)
        answer = relay(call, ledger=ledger, upstream=upstream, deadline_seconds=settings.DEADLINE_SECONDS)
    except RequestRefused as exc:
        return error_response(exc.status, exc.code, exc.message)
    except PoolExhausted as exc:
        return exhausted_response(exc, datetime.now(UTC))
    except UpstreamUnreachable as exc:
        logger.error("The Gemini API is out of reach: %s", exc)  # noqa: TRY400
        return error_response(502, "UNAVAILABLE", "The Gemini API is out of reach from this key manager.")
    except AnswerLost as exc:
        logger.error("%s", exc)  # noqa: TRY400
        status, code = (504, "DEADLINE_EXCEEDED") if exc.is_timeout else (502, "UNAVAILABLE")
        return error_response(status, code, str(exc))
    except DeadlineExceeded:
        return error_response(504, "DEADLINE_EXCEEDED", "Too many keys failed over; the time for this request is up.")
    except LedgerUnavailable as exc:
        return error_response(503, "UNAVAILABLE", str(exc))
    except Exception:
        logger.exception("The relay failed.")
        return error_response(500, "INTERNAL", "The key manager failed; its log says why.")
    response = StreamingHttpResponse(answer.body, status=answer.status)
    del response.headers["Content-Type"]
    for name, value in answer.headers:
        response.headers[name] = value
    response.headers["X-Accel-Buffering"] = "no"
    return response


@require_safe
def healthz(_: HttpRequest) -> HttpResponse:
    """Say that the process lives."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(_: HttpRequest) -> HttpResponse:
    """Say whether requests can be answered: database, migrations and a usable key; 503 with reasons if not."""
    problems = reports.obstacles()
    status = {"status": "not ready", "problems": problems} if problems else {"status": "ready"}
    return JsonResponse(status, status=503 if problems else 200)


@require_safe
@staff_member_required
def dashboard(request: HttpRequest) -> HttpResponse:
    """Show today: the pool, usage by key and model, what is exhausted until when."""
    moment = datetime.now(UTC)
    day = reports.today(moment)
    context = {
        **site.each_context(request),
        "title": "Today",
        "day": day,
        "zone": settings.QUOTA_TIME_ZONE,
        "moment": moment,
        "next_reset": next_reset(moment, settings.QUOTA_ZONE),
        "pool": reports.pool_state(moment),
        "usage": reports.usage_of(day),
        "exhaustion": reports.exhaustion_in_force(moment),
        "bad_keys": reports.bad_keys(),
        "has_default_token": settings.PLACEHOLDER_TOKEN == settings.DEFAULT_TOKEN,
    }
    return render(request, "proxy/dashboard.html", context)
