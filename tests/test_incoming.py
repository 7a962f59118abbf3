"""From an HTTP request to a call: client, path, credentials and body."""

import io
import json
import os
from contextlib import closing
from tempfile import SpooledTemporaryFile
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from proxy.client.errors import RequestRefused
from proxy.client.request import read_call
from proxy.models import NO_MODEL
from proxy.upstream.exchange import Call
from proxy.upstream.http1 import BodyStream
from tests.conftest import CHAT, FLASH, GENERATE, TOKEN, Pool, ask, error_in
from tests.fake_gemini import FakeGemini

SHOWN = {"x-goog-api-key": TOKEN}


class Pieces:
    """The body of a request as a server passes it on. `read` returns what has arrived, up to the size."""

    def __init__(self, *pieces: bytes, breaks_off: bool = False) -> None:
        self._pieces = list(pieces)
        self._breaks_off = breaks_off
        self.asked: list[int] = []

    def read(self, size: int) -> bytes:
        self.asked.append(size)
        while self._pieces and not self._pieces[0]:
            self._pieces.pop(0)
        if not self._pieces:
            if self._breaks_off:
                raise ConnectionResetError("gone")
            return b""
        piece, self._pieces[0] = self._pieces[0][:size], self._pieces[0][size:]
        return piece

    def readline(self) -> bytes:
        raise NotImplementedError


def request(
    path: str = GENERATE, body: bytes = b"", headers: dict[str, str] | None = None, **extra: Any
) -> WSGIRequest:
    headers = SHOWN if headers is None else headers
    return RequestFactory().generic("POST", path, body, "application/json", headers=headers, **extra)


def chunked(*pieces: bytes, path: str = GENERATE, is_terminated: bool = True, breaks_off: bool = False) -> WSGIRequest:
    extra: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": Pieces(*pieces, breaks_off=breaks_off)}
    if is_terminated:
        extra["wsgi.input_terminated"] = True
    return request(path, **extra)


def sized(length: object, body: Any) -> WSGIRequest:
    """Return a request with this Content-Length and a body that may differ from it."""
    extra: dict[str, Any] = {"wsgi.input": body, "CONTENT_LENGTH": str(length)}
    return request(**extra)


def body_of(call: Call) -> bytes:
    with closing(call):
        if call.body is None or isinstance(call.body, bytes):
            return call.body or b""
        assert not isinstance(call.body, BodyStream)
        call.body.seek(0)
        return call.body.read()


def refusal_of(asked: WSGIRequest) -> RequestRefused:
    with pytest.raises(RequestRefused) as refused:
        read_call(asked)
    return refused.value


# Who asks


@pytest.mark.parametrize("path", [GENERATE, CHAT, "/v1/models", "/v1/chat/completions", "/models"])
@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"x-goog-api-key": TOKEN}, ""),
        ({"x-goog-api-key": f" {TOKEN} "}, ""),
        ({"authorization": f"Bearer {TOKEN}"}, ""),
        ({"authorization": f"bearer {TOKEN}"}, ""),
        ({"authorization": f"Token {TOKEN}"}, ""),
        ({"x-api-key": TOKEN}, ""),
        ({"api-key": TOKEN}, ""),
        ({}, f"?key={TOKEN}"),
        ({}, f"?alt=sse&key={TOKEN}"),
        ({}, f"?access_token={TOKEN}"),
        ({}, "?key=PLACEHOLDER%5FGEMINI%5FTOKEN"),
        ({"x-goog-api-key": "", "authorization": f"Bearer {TOKEN}"}, ""),
        ({"x-goog-api-key": "wrong"}, f"?key={TOKEN}"),
        ({"x-goog-api-key": TOKEN, "authorization": f"Bearer {TOKEN}"}, f"?key={TOKEN}"),
    ],
)
def test_the_token_is_known_in_every_form_on_every_path(path: str, headers: dict[str, str], query: str) -> None:
    call = read_call(request(path + query, headers=headers))

    assert TOKEN not in call.target.path
    assert "key=" not in call.target.path


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({"x-goog-api-key": ""}, "?key="),
        ({"x-goog-api-key": "wrong"}, ""),
        ({"x-goog-api-key": TOKEN.lower()}, ""),
        ({"x-goog-api-key": TOKEN + "x"}, ""),
        ({"x-goog-api-key": TOKEN[:-1]}, ""),
        ({"x-goog-api-key": "gr\u00fc\u00dfe"}, ""),
        ({"authorization": TOKEN}, ""),
        ({"authorization": f"Basic {TOKEN}"}, ""),
        ({"cookie": f"key={TOKEN}"}, ""),
        ({}, f"?monkey={TOKEN}"),
        ({}, f"?token={TOKEN}"),
    ],
)
def test_without_the_token_no_request_gets_in_and_nothing_is_sent(
    gemini: FakeGemini, pool: Pool, headers: dict[str, str], query: str
) -> None:
    pool("one")

    response = ask(Client(headers=headers), GENERATE + query)

    assert response.status_code == 401
    assert error_in(response)["status"] == "UNAUTHENTICATED"
    assert not gemini.seen


def test_a_token_of_any_characters_is_known(settings: Settings) -> None:
    settings.PLACEHOLDER_TOKEN = "gr\u00fc\u00dfe & <k\u00fcsse>"
    on_the_wire = settings.PLACEHOLDER_TOKEN.encode().decode("latin-1")  # as WSGI has it

    read_call(request(headers={"x-goog-api-key": on_the_wire}))
    read_call(request(GENERATE + "?key=gr%C3%BC%C3%9Fe%20%26%20%3Ck%C3%BCsse%3E", headers={}))


# For what


@pytest.mark.parametrize("uri", ["/v1/../admin/", "/v1/%2e%2e/x", "/v1/%00", "/v1/a%0d%0ab", "/v1\\..\\x", "/v1/%5c.."])
def test_odd_paths_are_refused(uri: str) -> None:
    refused = refusal_of(request(RAW_URI=uri))

    assert (refused.status, refused.code) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "uri",
    ["/v1beta/files/a%23b%3Agen?x=%2f&y=[1]|2", "/v1beta/models/m:generateContent?a&b=", "/v1/files/x%20y?z=100%"],
)
def test_path_and_query_are_taken_as_the_client_wrote_them(uri: str) -> None:
    assert read_call(request("/decoded", RAW_URI=uri)).target.path == uri


def test_a_server_that_keeps_no_raw_path_has_it_encoded_again() -> None:
    call = read_call(request("/v1/files/x%20y?a=%2F&b=1"))

    assert call.target.path == "/v1/files/x%20y?a=%2F&b=1"


@pytest.mark.parametrize(
    ("path", "body", "model_name"),
    [
        (GENERATE, b"{}", FLASH),
        (GENERATE, b'{"model": "another"}', FLASH),
        (CHAT, b'{"model": "gemini-2.5-pro"}', "gemini-2.5-pro"),
        (CHAT, b'{"model": "models/gemini-2.5-pro"}', "gemini-2.5-pro"),
        (CHAT, b'{"messages": [{"model": "wrong"}], "model": "right"}', "right"),
        (CHAT, b"{not json", NO_MODEL),
        (CHAT, b"", NO_MODEL),
        (CHAT, b"[]", NO_MODEL),
        ("/v1beta/interactions", b'{"agent": "deep-research"}', "deep-research"),
        ("/v1beta/models", b"", NO_MODEL),
        ("/v1beta/files", b'{"model": "wrong"}', NO_MODEL),
        (CHAT, b'{"model": "' + b"m" * 200 + b'"}', "m" * 200),
        (f"/v1beta/models/{'m' * 300}:generateContent", b"{}", "m" * 200),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_model_is_that_of_the_path_or_else_of_the_body(
    path: str, body: bytes, model_name: str, is_chunked: bool
) -> None:
    call = read_call(chunked(body, path=path) if is_chunked else request(path, body))

    assert call.model_name == model_name
    assert body_of(call) == body


@pytest.mark.parametrize(
    "name", ['"\\ud800"', '"a\\u0000b"', '"a\\nb"', "5", "true", "{}", f'"{"m" * 201}"', f'"{"m" * 3_000_000}"']
)
@pytest.mark.parametrize("path", [CHAT, "/v1beta/interactions"])
def test_a_model_in_the_body_that_is_no_name_is_refused(path: str, name: str) -> None:
    refusal = refusal_of(request(path, b'{"model": %s}' % name.encode()))

    assert (refusal.status, refusal.code) == (400, "INVALID_ARGUMENT")
    assert "model" in refusal.message


def test_a_model_at_the_end_of_a_large_body_is_found() -> None:
    body = json.dumps({"messages": ["x" * 3_000_000], "model": "gemini-2.5-pro"}).encode()

    call = read_call(request(CHAT, body))

    assert call.model_name == "gemini-2.5-pro"
    assert body_of(call) == body


@pytest.mark.parametrize("path", [GENERATE, CHAT, "/v1beta/interactions"])
def test_only_a_post_can_be_a_call_of_a_model(path: str) -> None:
    body = b'{"model": "gemini-2.5-flash"}'
    put = RequestFactory().generic("PUT", path, body, "application/json", headers=SHOWN)

    call = read_call(put)

    assert (call.model_name, call.input_tokens) == (FLASH, None)
    assert read_call(request(path, body)).input_tokens is not None


# With which body


@hypothesis_settings(deadline=None)
@given(pieces=st.lists(st.binary(max_size=2000), max_size=10), is_chunked=st.booleans())
def test_any_body_however_it_is_sent_is_read_byte_for_byte(pieces: list[bytes], is_chunked: bool) -> None:
    body = b"".join(pieces)

    call = read_call(chunked(*pieces) if is_chunked else request(body=body))

    assert body_of(call) == body
    assert call.size == len(body)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [1_048_575, 1_048_576, 1_048_577, 3_000_000])
def test_a_large_body_is_kept_in_a_file_and_a_small_one_in_memory(size: int, is_chunked: bool) -> None:
    body = os.urandom(size)

    call = read_call(chunked(body[:1000], body[1000:]) if is_chunked else request(body=body))

    in_memory = isinstance(call.body, bytes) or not getattr(call.body, "_rolled", False)
    assert in_memory == (size <= 1_048_576)
    assert body_of(call) == body


def test_a_large_body_is_read_in_pieces() -> None:
    stream = Pieces(*[b"x" * 100_000] * 40)

    call = read_call(sized(4_000_000, stream))

    assert max(stream.asked) <= 1_048_576
    assert len(body_of(call)) == 4_000_000


@pytest.mark.parametrize("path", [GENERATE, CHAT, "/v1beta/interactions"])
def test_a_chunked_body_may_be_empty(path: str) -> None:
    call = read_call(chunked(path=path))

    assert (call.size, body_of(call)) == (0, b"")


def test_a_request_without_a_body_has_none() -> None:
    call = read_call(RequestFactory().get("/v1beta/models", headers=SHOWN))

    assert (call.body, call.size) == (None, 0)


class Forbidden(io.RawIOBase):
    """A body that must not be read."""

    reads: ClassVar[int] = 0

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("It was read.")


def test_a_body_declared_too_large_is_refused_unread(settings: Settings) -> None:
    settings.MAX_BODY_MB = 1

    refused = refusal_of(sized(1024 * 1024 + 1, Forbidden()))

    assert (refused.status, refused.code) == (413, "INVALID_ARGUMENT")
    assert "larger than 1 MB" in refused.message


@pytest.mark.parametrize("size", [1, 100_000, 1_048_576])
def test_a_chunked_body_that_grows_too_large_is_refused_at_that_point(settings: Settings, size: int) -> None:
    settings.MAX_BODY_MB = 2
    asked = chunked(*[b"x" * 1_048_576] * 2, b"x" * size, breaks_off=True)

    assert refusal_of(asked).status == 413


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_just_the_largest_size_is_taken(settings: Settings, is_chunked: bool) -> None:
    settings.MAX_BODY_MB = 1.5
    body = b"x" * 1_572_864

    call = read_call(chunked(body) if is_chunked else request(body=body))

    assert len(body_of(call)) == 1_572_864


def test_a_chunked_body_needs_a_server_that_knows_its_end() -> None:
    refused = refusal_of(chunked(b"{}", is_terminated=False))

    assert refused.status == 411
    assert "Content-Length" in refused.message


@pytest.mark.parametrize("size", [100, 2_000_000])
def test_a_body_that_ends_too_early_is_refused_and_nothing_is_sent(
    client: Client, gemini: FakeGemini, pool: Pool, size: int
) -> None:
    pool("one")
    extra: dict[str, Any] = {"wsgi.input": Pieces(b"x" * (size - 1)), "CONTENT_LENGTH": str(size)}

    response = client.generic("POST", GENERATE, **extra)

    assert response.status_code == 400
    assert b"of %d bytes" % size in response.content
    assert not gemini.seen


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_whose_client_breaks_off_is_refused(is_chunked: bool) -> None:
    asked = chunked(b"x" * 10, breaks_off=True) if is_chunked else sized(100, Pieces(breaks_off=True))

    assert refusal_of(asked).status == 400


@pytest.mark.parametrize("length", ["-5", "abc", "1e3", "\u00b2", "+5", "0x10"])
def test_a_length_that_is_no_number_is_none(length: str) -> None:
    call = read_call(sized(length, Forbidden()))

    assert (call.body, call.size) == (None, 0)


def test_the_file_of_a_large_body_is_closed_after_the_answer(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one")
    with patch("proxy.client.request.tempfile.SpooledTemporaryFile", Spool):
        Spool.made.clear()
        responses = [ask(client, body={"contents": "x" * size}) for size in (1_500_000, 2_000_000)]

    assert [response.status_code for response in responses] == [200, 200]
    assert [spool.closed for spool in Spool.made] == [True, True]


class Spool(SpooledTemporaryFile[bytes]):
    """A spool that records all of its instances."""

    made: ClassVar[list["Spool"]] = []

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size=max_size)
        self.made.append(self)
