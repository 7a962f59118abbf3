"""Reads a client's request: Django's HttpRequest becomes a Call."""

import hmac
import mmap
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import IO

from django.conf import settings
from django.http import HttpRequest
from django.urls import get_script_prefix
from django.utils.crypto import salted_hmac

from proxy.client.address import client_address
from proxy.client.base_urls import base_urls, log_once
from proxy.client.compressed_body import TooLargeDecompressed, decompressed
from proxy.client.default_token import check_default_token
from proxy.client.errors import RequestRefused
from proxy.client.websocket import wants_websocket
from proxy.gemini.conversation import beginnings_of
from proxy.gemini.credentials import Headers, credentials_in, ephemeral_token_in, has_bearer
from proxy.gemini.model_in_body import BadModelName, model_in_json
from proxy.gemini.paths import BadPath, UnknownPath
from proxy.gemini.resources import resources_in_body, upload_of
from proxy.gemini.target import Target, read_target
from proxy.gemini.tokens import estimate_input_tokens
from proxy.models import NO_MODEL
from proxy.upstream.exchange import Call
from proxy.upstream.http1 import BodyStream

_BREAKS_LINES = re.compile(r"[\r\n\0]")
_REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_IN_MEMORY = 1_048_576
_PIECE = 262_144


def read_call(request: HttpRequest) -> Call:
    """Return the client's call. Raises RequestRefused when it has no valid token or cannot be forwarded."""
    headers = _headers_of(request)
    query = request.META.get("QUERY_STRING", "")
    has_no_token, ephemeral_token = not _has_token(headers, query), ""
    if has_no_token:
        # Google's Python client continues its uploads without any credential, and sessions of the Live API may begin
        # with an ephemeral token. The ledger will tell whether they may.
        ephemeral_token = ephemeral_token_in(headers, query) if wants_websocket(request) else ""
        continues_upload = request.method in ("POST", "PUT") and upload_of(_raw_uri(request))
        if not (continues_upload or ephemeral_token):
            raise without_token()
    check_default_token(request.META)
    target = _target_of(request, headers)
    is_upload = target.path.startswith("/upload/")
    body, size = _read_body(request, is_streamed=is_upload and target.continues_upload)
    model_name = target.model_name
    input_tokens = None
    spends_quota = target.spends_quota and request.method == "POST"
    resources = {target.resource, ephemeral_token} - {""}
    beginnings: tuple[int, ...] = ()
    if body and size and not is_upload and not isinstance(body, BodyStream):
        with ExitStack() as on_failure, ExitStack() as opened:
            if not isinstance(body, bytes):
                on_failure.callback(body.close)
            content = opened.enter_context(_bytes_of(body))
            if encoding := request.META.get("HTTP_CONTENT_ENCODING"):
                content = _decompressed(content, encoding, opened)
            if target.has_model_in_body:
                model_name = _model_in(content)
            if spends_quota:
                input_tokens = estimate_input_tokens(content)
            resources |= resources_in_body(content)
            if spends_quota and settings.KEEP_CONVERSATIONS and isinstance(content, bytes):
                beginnings = beginnings_of(content, model_name)
            on_failure.pop_all()  # from here on, the Call closes it
    return Call(
        request.method or "GET",
        target,
        headers,
        body,
        size,
        (model_name or NO_MODEL)[:200],
        input_tokens,
        _timeout_in(request.META.get("HTTP_X_SERVER_TIMEOUT", "")),
        frozenset(resources),
        _creator_of(request) if target.names_resources and not (target.resource or spends_quota) else "",
        has_no_token,
        beginnings,
        _base_url_of(request) if is_upload and not target.continues_upload else "",
        ephemeral_token,
    )


def without_token() -> RequestRefused:
    """Return the error for a request without a valid token."""
    return RequestRefused(
        401,
        "UNAUTHENTICATED",
        "Missing or wrong token. Send it as x-goog-api-key, as Authorization: Bearer, or as ?key=. "
        f"The dashboard is at {get_script_prefix()}dashboard/.",
    )


def _creator_of(request: HttpRequest) -> str:
    """Return a digest of the client's address if it has something created; "" otherwise."""
    if request.method != "POST":
        return ""
    address = client_address(request.META, settings.TRUSTED_PROXIES)
    return salted_hmac("proxy.client.creator", str(address), algorithm="sha256").hexdigest()


def _base_url_of(request: HttpRequest) -> str:
    """Return the address under which the client reaches this service, without a slash at its end."""
    host = request.META.get("HTTP_HOST") or request.get_host()
    return f"{request.scheme}://{host}{get_script_prefix().rstrip('/')}"


def request_id_of(request: HttpRequest) -> str:
    """Return the client's X-Request-Id if it is well-formed, otherwise a new id."""
    sent = str(request.META.get("HTTP_X_REQUEST_ID", ""))
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)


def _timeout_in(text: str) -> float | None:
    """Return the timeout that Google's clients send in a header, in seconds; None if it is missing or malformed."""
    return float(text) or None if _SECONDS.fullmatch(text) else None


def _headers_of(request: HttpRequest) -> Headers:
    """Return the request's headers. WSGI has lost the case of their names, which HTTP ignores."""
    headers = [(_header_name(name), value) for name, value in request.META.items() if name.startswith("HTTP_")]
    if content_type := request.META.get("CONTENT_TYPE"):
        headers.append(("Content-Type", content_type))
    if _BREAKS_LINES.search("".join([value for _, value in headers])):
        raise RequestRefused(400, "INVALID_ARGUMENT", "A header contains a line break or a NUL.")
    return headers


@lru_cache(maxsize=1024)
def _header_name(name: str) -> str:
    return name.removeprefix("HTTP_").replace("_", "-").title()


def _has_token(headers: Headers, query: str) -> bool:
    token = settings.PLACEHOLDER_TOKEN.encode()
    # WSGI decodes headers as latin-1. All are compared, even after a match, so that the time taken reveals nothing.
    matches = [
        hmac.compare_digest(sent.encode(encoding, "replace"), token)
        for sent in credentials_in(headers, query)
        for encoding in (("utf-8",) if sent.isascii() else ("utf-8", "latin-1"))
    ]
    return any(matches)


def _target_of(request: HttpRequest, headers: Headers) -> Target:
    try:
        target = read_target(_raw_uri(request), has_bearer=has_bearer(headers))
    except UnknownPath as exc:
        raise RequestRefused(404, "NOT_FOUND", f"{exc} {base_urls(request)}") from exc
    except BadPath as exc:
        raise RequestRefused(400, "INVALID_ARGUMENT", str(exc)) from exc
    if target.oddity:
        log_once(request, target.oddity, target.path)
    return target


def _decompressed(content: bytes | mmap.mmap, encoding: str, opened: ExitStack) -> bytes | mmap.mmap:
    try:
        return opened.enter_context(decompressed(content, encoding, _most_bytes()))
    except TooLargeDecompressed as exc:
        raise _too_large() from exc


def _model_in(content: bytes | mmap.mmap) -> str:
    try:
        return model_in_json(content)
    except BadModelName as exc:
        raise RequestRefused(400, "INVALID_ARGUMENT", str(exc)) from exc


def _raw_uri(request: HttpRequest) -> str:
    """Return the request target as sent. Servers without RAW_URI have decoded it, so it is encoded again."""
    if raw := request.META.get("RAW_URI"):
        return str(raw)
    return request.get_full_path_info()


def _read_body(request: HttpRequest, *, is_streamed: bool) -> tuple[bytes | IO[bytes] | BodyStream | None, int]:
    """Return the body and its size in bytes. It is in memory up to 1 MiB, otherwise in a temporary file.

    is_streamed: a longer body is neither stored nor limited. It is read while it is sent.
    """
    length = request.META.get("CONTENT_LENGTH") or ""
    is_chunked = "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
    if is_chunked and not request.META.get("wsgi.input_terminated"):
        raise RequestRefused(
            411, "INVALID_ARGUMENT", "This server needs a Content-Length. `make run` also accepts chunked bodies."
        )
    if not is_chunked and not (length.isascii() and length.isdigit()):
        return None, 0
    most = _most_bytes()
    expected = None if is_chunked else int(length)
    stream = request.META["wsgi.input"]
    if is_streamed and expected is not None and expected > _IN_MEMORY:
        return _passed_on(stream, expected), expected
    if (expected or 0) > most:
        raise _too_large()
    if expected is not None and expected <= _IN_MEMORY:
        body = _read(stream, expected)
        _check_complete(len(body), expected)
        return body, expected
    with ExitStack() as on_failure:
        spool = on_failure.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))
        size = 0
        while piece := _read(stream, _PIECE if expected is None else min(_PIECE, expected - size)):
            size += len(piece)
            if size > most:
                raise _too_large()
            spool.write(piece)
            time.sleep(0)  # lets other greenlets run, even if the client is fast
        _check_complete(size, expected)
        if size <= _IN_MEMORY:
            spool.seek(0)
            return spool.read(), size
        on_failure.pop_all()
    return spool, size


def _passed_on(stream: IO[bytes], size: int) -> BodyStream:
    read_so_far = 0

    def read(most: int) -> bytes:
        nonlocal read_so_far
        piece = _read(stream, min(most, size - read_so_far))
        read_so_far += len(piece)
        if not piece:
            _check_complete(read_so_far, size)
        return piece

    return BodyStream(read)


def _read(stream: IO[bytes], size: int) -> bytes:
    try:
        return stream.read(size)
    except TimeoutError as exc:
        raise RequestRefused(408, "DEADLINE_EXCEEDED", "The body arrived too slowly (CLIENT_TIMEOUT_SECONDS).") from exc
    except Exception as exc:  # each server has its own exceptions for a client that disconnects
        raise RequestRefused(400, "INVALID_ARGUMENT", "The body is incomplete.") from exc


def _check_complete(size: int, expected: int | None) -> None:
    if expected is not None and size < expected:
        raise RequestRefused(400, "INVALID_ARGUMENT", f"The body ended after {size} of {expected} bytes.")


def _most_bytes() -> int:
    return int(settings.MAX_BODY_MB * 1024 * 1024)


def _too_large() -> RequestRefused:
    return RequestRefused(
        413, "INVALID_ARGUMENT", f"The body is larger than {settings.MAX_BODY_MB:g} MB (setting MAX_BODY_MB)."
    )


@contextmanager
def _bytes_of(body: bytes | IO[bytes]) -> Iterator[bytes | mmap.mmap]:
    if isinstance(body, bytes):
        yield body
        return
    body.flush()
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
