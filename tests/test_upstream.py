"""One exchange with the upstream: what is sent, what is not, and what comes back, byte for byte."""

import base64
import gzip
import ipaddress
import json
import os
import select
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.gemini.credentials import Headers, has_bearer
from proxy.gemini.target import read_target
from proxy.upstream.exchange import AnswerLost, Call, Upstream, UpstreamAnswer, UpstreamUnreachable
from tests import gemini_errors as errors
from tests.conftest import CHAT, GENERATE, STREAM, RawUpstream, fake_secret, is_soon, nobodys_port
from tests.fake_gemini import FakeGemini, Fault, Reply

ONE = fake_secret("Xq7-odd_one")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STAYS_BEHIND = (
    *("Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "TE", "Trailer", "Upgrade", "Expect"),
    *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "X-Client-Ip"),
    *("True-Client-Ip", "Cf-Connecting-Ip", "Origin", "Referer", "X-Request-Id", "X-Correlation-Id", "Traceparent"),
    *("Tracestate", "Baggage", "X-Amzn-Trace-Id", "X-Cloud-Trace-Context", "Openai-Organization", "Openai-Project"),
    *("X-Goog-User-Project", "X-Gemini-Api-Privileged-User-Id", "X-Stainless-Retry-Count"),
)
ADDED_ON_THE_WAY = (
    *("X-Cluster-Client-Ip", "X-Envoy-External-Address", "X-Azure-Clientip", "Fastly-Client-Ip"),
    *("X-Appengine-User-Ip", "X-B3-Traceid", "B3", "Sentry-Trace"),
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def call(
    path: str = GENERATE, *, method: str = "POST", headers: Headers | None = None, body: bytes | None = b"{}"
) -> Call:
    headers = headers or []
    target = read_target(path, has_bearer=has_bearer(headers))
    return Call(method, target, headers, body, len(body or b""), "gemini-2.5-flash")


@pytest.fixture
def upstream(gemini: FakeGemini) -> Iterator[Upstream]:
    upstream = Upstream(gemini.url, connect_seconds=2, read_seconds=2)
    yield upstream
    upstream.close()


@pytest.fixture
def raw_upstream(raw: RawUpstream) -> Iterator[Upstream]:
    """An upstream that sends exactly what a test scripts with `raw`."""
    upstream = Upstream(raw.url, connect_seconds=2, read_seconds=2)
    yield upstream
    upstream.close()


def content_of(answer: UpstreamAnswer) -> bytes:
    content = b"".join(answer)
    answer.close()
    return content


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


# What travels


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (GENERATE, ("x-goog-api-key", ONE)),
        ("/v1beta/models", ("x-goog-api-key", ONE)),
        (CHAT, ("authorization", f"Bearer {ONE}")),
        ("/v1/chat/completions", ("authorization", f"Bearer {ONE}")),
        ("/v1/embeddings", ("authorization", f"Bearer {ONE}")),
    ],
)
@pytest.mark.parametrize(
    "credential",
    [
        ("X-Goog-Api-Key", "client-token"),
        ("Authorization", "Bearer client-token"),
        ("Authorization", "Token client-token"),
        ("Authorization", "Basic Y2xpZW50LXRva2Vu"),
        ("X-Api-Key", "client-token"),
        ("Api-Key", "client-token"),
        ("Proxy-Authorization", "Bearer client-token"),
        ("Cookie", "session=client-token"),
        ("?key=", "client-token"),
        ("?KEY=", "client-token"),
        ("?access_token=", "client-token"),
        ("?%6Bey=", "client-token"),
    ],
    ids=" ".join,
)
def test_exactly_one_credential_travels_and_none_of_the_clients(
    gemini: FakeGemini, upstream: Upstream, *, path: str, shown: tuple[str, str], credential: tuple[str, str]
) -> None:
    name, value = credential
    path = f"{path}{name}{value}&alt=json" if name.startswith("?") else f"{path}?alt=json"
    gemini.script("*", Reply())

    content_of(upstream.send(call(path, headers=[] if name.startswith("?") else [credential]), ONE))

    [seen] = gemini.seen
    assert seen.credentials == [ONE]
    assert [(name.lower(), value) for name, value in seen.headers if ONE in value] == [shown]
    assert "client-token" not in repr(seen)
    assert "Y2xpZW50LXRva2Vu" not in repr(seen)
    assert ONE not in seen.path
    assert seen.path.endswith("?alt=json")


def test_two_credentials_of_a_client_are_replaced_by_one(gemini: FakeGemini, upstream: Upstream) -> None:
    both = [("X-Goog-Api-Key", "client-token"), ("Authorization", "Bearer client-token")]

    content_of(upstream.send(call(f"{GENERATE}?key=client-token&key=again", headers=both), ONE))

    assert gemini.seen[0].credentials == [ONE]
    assert gemini.seen[0].path == GENERATE


@pytest.mark.parametrize("name", STAYS_BEHIND)
def test_hop_by_hop_headers_and_those_about_the_client_are_not_sent(
    gemini: FakeGemini, upstream: Upstream, name: str
) -> None:
    content_of(upstream.send(call(headers=[(name, "tell-tale"), ("X-Kept", "1")]), ONE))

    assert gemini.seen[0].header("X-Kept") == "1"
    assert "tell-tale" not in repr(gemini.seen)


@pytest.mark.parametrize("name", ADDED_ON_THE_WAY)
def test_headers_of_front_servers_and_tracers_are_not_sent(gemini: FakeGemini, upstream: Upstream, name: str) -> None:
    content_of(upstream.send(call(headers=[(name, "tell-tale")]), ONE))

    assert "tell-tale" not in repr(gemini.seen)


def test_headers_named_by_connection_are_not_sent(gemini: FakeGemini, upstream: Upstream) -> None:
    headers = [("Connection", "close, X-Hop"), ("X-Hop", "tell-tale"), ("X-Kept", "1")]

    content_of(upstream.send(call(headers=headers), ONE))

    assert (gemini.seen[0].header("X-Hop"), gemini.seen[0].header("X-Kept")) == (None, "1")


def test_a_client_cannot_name_our_credential_away(gemini: FakeGemini, upstream: Upstream) -> None:
    headers = [("Connection", "x-goog-api-key, content-length, host, authorization")]

    answer = upstream.send(call(headers=headers), ONE)

    assert (answer.status, gemini.seen[0].body) == (200, b"{}")
    content_of(answer)


def test_headers_about_the_body_and_the_client_library_are_sent(gemini: FakeGemini, upstream: Upstream) -> None:
    said = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Encoding", "gzip"),
        ("User-Agent", "GeminiCLI-tui/0.61"),
        ("X-Goog-Api-Client", "google-genai-sdk/3.4.0"),
        ("X-Server-Timeout", "20"),
        ("X-Goog-Upload-Command", "upload, finalize"),
        ("X-Goog-Upload-Offset", "0"),
        ("Accept", "*/*"),
        ("Range", "bytes=0-99"),
        ("If-None-Match", '"abc"'),
        ("X-Umlaut", "Gr\u00fc\u00dfe"),
    ]

    content_of(upstream.send(call(headers=said), ONE))

    seen = gemini.seen[0]
    assert {name: seen.header(name) for name, _ in said} == dict(said)
    assert seen.header("Host") == gemini.url.removeprefix("http://")


def test_nothing_is_made_up_about_the_client(gemini: FakeGemini, upstream: Upstream) -> None:
    content_of(upstream.send(call(), ONE))

    names = {name.lower() for name, _ in gemini.seen[0].headers}
    assert names == {"host", "accept-encoding", "content-length", "x-goog-api-key"}


@pytest.mark.parametrize(
    ("offered", "sent"),
    [
        (None, "identity"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("br;q=1.0, GZIP;q=0.8", "gzip"),
        ("br, zstd", "identity"),
        ("identity", "identity"),
        ("gzip;q=0, identity", "identity"),
        ("gzip; q=0.0", "identity"),
    ],
)
def test_of_the_encodings_that_a_client_accepts_only_gzip_is_requested(
    gemini: FakeGemini, upstream: Upstream, offered: str | None, sent: str
) -> None:
    headers = [("Accept-Encoding", offered)] if offered else []

    content_of(upstream.send(call(headers=headers), ONE))

    assert gemini.seen[0].header("Accept-Encoding") == sent


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("alt=sse", "alt=sse"),
        ("a=%2f&b=%2F&c=[1]&d=a|b&e='%22{}", "a=%2f&b=%2F&c=[1]&d=a|b&e='%22{}"),
        ("filter=100%&x=%2F", "filter=100%&x=%2F"),
        ("a&b=&=c&a", "a&b=&=c&a"),
        ("a=1+2&b=1%202", "a=1+2&b=1%202"),
        ("key=client-token&alt=sse", "alt=sse"),
        ("alt=sse&key=client-token&pageSize=2", "alt=sse&pageSize=2"),
        ("monkey=1&keys=2&api_key_id=3", "monkey=1&keys=2&api_key_id=3"),
        ("a=1&&b=2&", "a=1&&b=2&"),
    ],
)
def test_a_query_travels_byte_for_byte_but_for_credentials(
    gemini: FakeGemini, upstream: Upstream, asked: str, sent: str
) -> None:
    content_of(upstream.send(call(f"/v1/models?{asked}", method="GET", body=None), ONE))

    assert gemini.seen[0].path == f"/v1/models?{sent}"


@pytest.mark.parametrize(
    "path", ["/v1beta/files/%7Ea%3ab", "/v1/files/x%20y", "/$discovery/rest", "/v1main/files/~a!b@c"]
)
def test_a_path_travels_byte_for_byte(gemini: FakeGemini, upstream: Upstream, path: str) -> None:
    upstream.send(call(path, method="GET", body=None), ONE).close()

    assert gemini.seen[0].path == path


def test_the_upstream_may_live_below_a_path(gemini: FakeGemini) -> None:
    upstream = Upstream(f"{gemini.url}/gateway/one", connect_seconds=2, read_seconds=2)

    upstream.send(call("/v1/models?a=1", method="GET", body=None), ONE).close()
    upstream.close()

    assert gemini.seen[0].path == "/gateway/one/v1/models?a=1"


@pytest.mark.parametrize(
    "path", ["//evil.example/v1/models", "http://evil.example/v1/models", "///v1/models", "/@evil/v1/models"]
)
def test_no_path_changes_where_the_secret_goes(gemini: FakeGemini, upstream: Upstream, path: str) -> None:
    upstream.send(call(path, method="GET", body=None), ONE).close()

    assert gemini.seen[0].header("Host") == gemini.url.removeprefix("http://")
    assert gemini.seen[0].secret == ONE


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nX-Injected: 1", "a\rX-Injected: 1", "a\0"])
def test_no_header_breaks_into_two(gemini: FakeGemini, upstream: Upstream, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        upstream.send(call(headers=[("X-Odd", value)]), ONE)

    assert not gemini.seen


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_a_body_travels_byte_for_byte(gemini: FakeGemini, upstream: Upstream, size: int) -> None:
    body = os.urandom(size)
    gemini.script("*", Reply())

    content_of(upstream.send(call(body=body), ONE))

    assert gemini.seen[0].body == body
    assert gemini.seen[0].header("Content-Length") == str(size)


def test_a_request_without_a_body_names_no_length(gemini: FakeGemini, upstream: Upstream) -> None:
    upstream.send(call("/v1/models", method="GET", body=None), ONE).close()

    assert gemini.seen[0].header("Content-Length") is None


# What comes back


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    has_extension=st.booleans(),
    has_trailer=st.booleans(),
)
def test_any_body_however_chunked_arrives_byte_for_byte(
    raw: RawUpstream, raw_upstream: Upstream, *, pieces: list[bytes], has_extension: bool, has_trailer: bool
) -> None:
    framed = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), b" ;x=y" if has_extension else b"", piece) for piece in pieces)
    raw.script(CHUNKED + framed + (b"0\r\nX-Sum: 1\r\n\r\n" if has_trailer else b"0\r\n\r\n"), raw.KEEP)

    answer = raw_upstream.send(call(), ONE)

    assert content_of(answer) == b"".join(pieces)
    assert raw.connections == 1


@pytest.mark.parametrize("cut", range(1, len(CHUNKED + b"5;a=b\r\nhello\r\n00\r\nX-Sum: 1\r\n\r\n")))
def test_an_answer_cut_anywhere_on_its_way_is_put_together(raw: RawUpstream, raw_upstream: Upstream, cut: int) -> None:
    answered = CHUNKED + b"5;a=b\r\nhello\r\n00\r\nX-Sum: 1\r\n\r\n"
    raw.script(answered[:cut], answered[cut:], raw.KEEP)
    threading.Timer(0.002, raw.go_on).start()

    answer = raw_upstream.send(call(), ONE)

    assert content_of(answer) == b"hello"


def test_a_piece_is_handed_on_before_the_next_has_come(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(CHUNKED + chunk(b"data: 1\r\n\r\n"), chunk(b"data: 2\r\n\r\n"), b"0\r\n\r\n")
    answer = raw_upstream.send(call(), ONE)
    pieces = iter(answer)

    received = [next(pieces)]
    raw.go_on()
    received.append(next(pieces))
    raw.go_on()
    received.extend(pieces)
    answer.close()

    assert received == [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]


@pytest.mark.parametrize(
    "answered",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"a\r\nhello",
        CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n" + b"0" * 20_000,
    ],
)
def test_an_incomplete_or_invalid_answer_is_cut_off(raw: RawUpstream, raw_upstream: Upstream, answered: bytes) -> None:
    raw.script(answered)
    answer = raw_upstream.send(call(), ONE)

    with pytest.raises(ConnectionResetError):
        list(answer)

    answer.close()


@pytest.mark.parametrize(
    "answered",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH_9.7\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-Odd : a\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
    ],
)
def test_an_ambiguous_answer_is_an_error(raw: RawUpstream, raw_upstream: Upstream, answered: bytes) -> None:
    raw.script(answered)

    with pytest.raises(AnswerLost) as lost:
        raw_upstream.send(call(), ONE)

    assert not lost.value.is_timeout
    assert len(raw.requests) == 1


def test_an_answer_that_ends_with_its_connection_is_complete(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhel", b"lo")
    answer = raw_upstream.send(call(), ONE)
    raw.go_on()

    assert content_of(answer) == b"hello"


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
def test_interim_answers_are_not_the_answer(raw: RawUpstream, raw_upstream: Upstream, interim: bytes) -> None:
    raw.script(interim * 2 + OK)

    answer = raw_upstream.send(call(), ONE)

    assert (answer.status, content_of(answer)) == (200, b"ok")
    assert "Link" not in dict(answer.headers)


def test_an_answer_that_comes_before_the_whole_request_was_read_is_the_answer(
    raw: RawUpstream, raw_upstream: Upstream
) -> None:
    raw.reads_bodies = False
    raw.script(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")

    answer = raw_upstream.send(call(body=b"x" * 20_000_000), ONE)

    assert (answer.status, content_of(answer)) == (413, b"too large")


def test_every_header_of_the_answer_is_passed_on_except_hop_by_hop_headers(
    raw: RawUpstream, raw_upstream: Upstream
) -> None:
    raw.script(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: Origin\r\nvary: X-Origin\r\nX-Goog-Upload-Status: active\r\n"
        b"Alt-Svc: h3\r\nSet-Cookie: a=b\r\nKeep-Alive: 5\r\nTE: x\r\nTrailer: y\r\nUpgrade: z\r\n"
        b"Proxy-Authenticate: Basic\r\nX-Umlaut: Gr\xfc\xdfe\r\nX-Empty:\r\n\r\nok"
    )

    answer = raw_upstream.send(call(), ONE)

    content_of(answer)
    assert answer.headers == [
        ("Content-Length", "2"),
        ("Vary", "Origin"),
        ("vary", "X-Origin"),
        ("X-Goog-Upload-Status", "active"),
        ("X-Umlaut", "Gr\u00fc\u00dfe"),
        ("X-Empty", ""),
    ]


def test_headers_named_by_the_answers_connection_header_are_not_passed_on(
    raw: RawUpstream, raw_upstream: Upstream
) -> None:
    raw.script(b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok")

    answer = raw_upstream.send(call(), ONE)

    content_of(answer)
    assert answer.headers == [("Content-Length", "2")]


def test_a_length_beside_chunks_is_not_handed_on(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")

    answer = raw_upstream.send(call(), ONE)

    assert content_of(answer) == b"ok"
    assert answer.headers == []


def test_a_repeated_content_length_is_passed_on_once(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok")

    answer = raw_upstream.send(call(), ONE)

    assert content_of(answer) == b"ok"
    assert answer.headers == [("Content-Length", "2")]


# Secrets in answers


@pytest.mark.parametrize("cut", range(1, len(ONE)))
def test_a_secret_cut_in_two_by_a_stream_is_masked(raw: RawUpstream, raw_upstream: Upstream, cut: int) -> None:
    secret = ONE.encode()
    before, after = b"data: api_key:" + secret[:cut], secret[cut:] + b" was suspended"
    raw.script(CHUNKED + chunk(before), chunk(after) + b"0\r\n\r\n")
    answer = raw_upstream.send(call(STREAM), ONE)
    pieces = iter(answer)

    content = next(pieces)
    raw.go_on()
    content += b"".join(pieces)
    answer.close()

    assert secret not in content
    assert len(content) == len(before + after)
    assert content.startswith(b"data: api_key:")
    assert content.endswith(ONE[-4:].encode() + b" was suspended")


@pytest.mark.parametrize("tail", [b"A", b"AI", b"AIza", b"AIzaBook", ONE[:-1].encode()])
def test_text_that_only_starts_like_a_secret_is_not_masked(
    raw: RawUpstream, raw_upstream: Upstream, tail: bytes
) -> None:
    raw.script(CHUNKED + chunk(b"data: " + tail), chunk(b"!") + b"0\r\n\r\n")
    answer = raw_upstream.send(call(STREAM), ONE)
    raw.go_on()

    assert content_of(answer) == b"data: " + tail + b"!"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from([b"AIza", ONE.encode(), ONE[:20].encode(), b"A", b"\r\n"]), max_size=6),
    piece_size=st.integers(1, 60),
)
def test_a_secret_is_masked_wherever_a_stream_is_cut(
    raw: RawUpstream, raw_upstream: Upstream, parts: list[bytes], piece_size: int
) -> None:
    content = b"".join(parts)
    raw.script(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content, raw.KEEP)

    answer = raw_upstream.send(call(STREAM), ONE)
    with patch("proxy.upstream.http1._PIECE", piece_size):
        received = content_of(answer)

    assert received == content.replace(ONE.encode(), b"*" * (len(ONE) - 4) + ONE[-4:].encode())


def test_a_header_that_repeats_the_secret_is_masked_and_stays_plain_text(
    raw: RawUpstream, raw_upstream: Upstream
) -> None:
    location = f"https://example.com/?key={ONE}&a=b".encode()
    raw.script(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")

    answer = raw_upstream.send(call(), ONE)

    content_of(answer)
    value = dict(answer.headers)["Location"]
    assert ONE not in value
    assert value.startswith("https://example.com/?key=")
    assert value.isascii()


@pytest.mark.parametrize("packs", [True, False], ids=["gzip", "plain"])
def test_an_error_that_repeats_the_secret_is_masked(gemini: FakeGemini, upstream: Upstream, packs: bool) -> None:
    gemini.script("*", errors.suspended(ONE))
    headers = [("Accept-Encoding", "gzip")] if packs else []

    answer = upstream.send(call(headers=headers), ONE)
    content = content_of(answer)

    assert answer.content == content
    assert content.count(ONE[-4:].encode()) == 3
    assert ONE.encode() not in content
    assert dict(answer.headers)["Content-Length"] == str(len(content))
    assert "Content-Encoding" not in dict(answer.headers)


@pytest.mark.parametrize("packs", [True, False], ids=["gzip", "plain"])
def test_an_error_is_read_in_clear_and_handed_on_as_it_came(
    gemini: FakeGemini, upstream: Upstream, packs: bool
) -> None:
    gemini.script("*", errors.bad_request("Gr\u00fc\u00dfe"))
    headers = [("Accept-Encoding", "gzip")] if packs else []

    answer = upstream.send(call(headers=headers), ONE)
    content = content_of(answer)

    assert json.loads(answer.content) == errors.bad_request("Gr\u00fc\u00dfe").body
    assert (gzip.decompress(content) if packs else content) == answer.content
    assert dict(answer.headers)["Content-Length"] == str(len(content))


@pytest.mark.parametrize("packs", [True, False], ids=["gzip", "plain"])
def test_an_error_of_many_megabytes_arrives_complete(raw: RawUpstream, raw_upstream: Upstream, packs: bool) -> None:
    page = os.urandom(3_000_000)
    body = gzip.compress(page, 1) if packs else page
    encoding = b"Content-Encoding: gzip\r\n" if packs else b""
    raw.script(b"HTTP/1.1 500 Odd\r\n%bContent-Length: %d\r\n\r\n" % (encoding, len(body)) + body)

    answer = raw_upstream.send(call(), ONE)

    assert content_of(answer) == body
    assert 0 < len(answer.content) < 2_000_000


def test_an_error_that_unpacks_to_gigabytes_is_not_unpacked_whole(raw: RawUpstream, raw_upstream: Upstream) -> None:
    packer = zlib.compressobj(9, wbits=31)
    body = b"".join(packer.compress(bytes(1_000_000)) for _ in range(100)) + packer.flush()
    raw.script(b"HTTP/1.1 400 Odd\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    answer = raw_upstream.send(call(), ONE)

    assert content_of(answer) == body
    assert len(answer.content) <= 1_048_576


@pytest.mark.parametrize("answered", [b"HTTP/1.1 404 Odd\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 500 Odd\r\n"])
def test_an_error_that_breaks_off_is_no_answer(raw: RawUpstream, raw_upstream: Upstream, answered: bytes) -> None:
    raw.script(answered)

    with pytest.raises(AnswerLost):
        raw_upstream.send(call(), ONE)


def test_a_compressed_stream_that_repeats_the_secret_does_not_hand_it_on(
    raw: RawUpstream, raw_upstream: Upstream
) -> None:
    compressed = gzip.compress(b'[{"error": {"message": "api_key:' + ONE.encode() + b' has been suspended"}}]')
    raw.script(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed) + compressed
    )
    answer = raw_upstream.send(call(headers=[("Accept-Encoding", "gzip")]), ONE)

    received = b""
    try:
        for piece in answer:
            received += piece
    except ConnectionResetError:
        pass  # breaking off is as good as masking
    answer.close()

    assert received != compressed


def members(*contents: bytes) -> bytes:
    return b"".join(gzip.compress(content, mtime=0) for content in contents)


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


TELLS = b'{"error": {"message": "Consumer api_key:' + ONE.encode() + b' has been suspended."}}'
SPACE = b" " * 3_000_000
PACKED_SECRETS = {
    "gzip": (b"gzip", gzip.compress(TELLS)),
    "x-gzip": (b"x-gzip", gzip.compress(TELLS)),
    "second member": (b"gzip", members(b"{}", TELLS)),
    "third member, after padding": (b"gzip", members(b"{}", b"") + bytes(9) + members(TELLS)),
    "cut by two members": (b"gzip", members(TELLS[:60], TELLS[60:])),
    "far behind": (b"gzip", members(os.urandom(1_200_000), TELLS)),
    "far behind, well compressed": (b"gzip", members(SPACE + TELLS)),
    "behind the last member": (b"gzip", members(b"{}") + TELLS),
    "deflate": (b"deflate", zlib.compress(TELLS)),
    "deflate without a head": (b"deflate", deflated(TELLS)),
    "damaged": (b"gzip", gzip.compress(TELLS)[:-8] + bytes(8)),
    "not compressed": (b"gzip", TELLS),
    "brotli": (b"br", b"\x0b\x02\x80" + TELLS[:-1] + b"\x03"),
    "twice": (b"gzip, gzip", gzip.compress(gzip.compress(TELLS))),
    "twice, in two headers": (b"gzip\r\nContent-Encoding: gzip", gzip.compress(gzip.compress(TELLS))),
    "identity": (b"identity", TELLS),
}


def decompress_all(content: bytes) -> bytes:
    """Return everything that even the most lenient client could read in `content`."""
    content_out = bytearray(content)
    step = 1 if len(content) < 10_000 else 4_096
    for wbits in (47, -15):
        rest = content
        for _ in range(5):  # members, or layers
            decompressor, start = zlib.decompressobj(wbits=wbits), len(content_out)
            with suppress(zlib.error):
                for number in range(0, len(rest), step):
                    content_out += decompressor.decompress(rest[number : number + step])
            rest = decompressor.unused_data.lstrip(b"\0") or bytes(content_out[start:])
    return bytes(content_out)


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize("name", PACKED_SECRETS)
def test_no_compressed_body_reveals_a_secret(raw: RawUpstream, raw_upstream: Upstream, name: str, status: int) -> None:
    encoding, body = PACKED_SECRETS[name]
    head = b"HTTP/1.1 %d Odd\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    raw.script(head % (status, encoding, len(body)) + body)

    received = b""
    with suppress(AnswerLost, ConnectionResetError):  # breaking off is as good as masking
        answer = raw_upstream.send(call(), ONE)
        with closing(answer):
            for piece in answer:
                received += piece
        assert ONE.encode() not in answer.content

    assert ONE.encode() not in decompress_all(received)


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("tail", [b"", b"garbage", bytes(512), b"\x1f"], ids=["nothing", "garbage", "zeros", "half"])
@pytest.mark.parametrize("content", [members(b'{"a": ', b'"b"}'), members(b"", b"", b"{}")], ids=["two", "three"])
def test_an_answer_of_several_members_arrives_with_the_data_after_them(
    raw: RawUpstream, raw_upstream: Upstream, content: bytes, tail: bytes, status: int
) -> None:
    body = content + tail
    raw.script(b"HTTP/1.1 %d Odd\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    answer = raw_upstream.send(call(), ONE)

    assert content_of(answer) == body
    assert answer.content == (b"" if status == 200 else gzip.decompress(content))


def test_a_429_in_an_unrequested_encoding_is_still_a_429(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(b"HTTP/1.1 429 Odd\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\n\x0b\x02\x80{}\x03")

    answer = raw_upstream.send(call(), ONE)

    assert (answer.status, content_of(answer)) == (429, b"")
    assert answer.headers == [("Content-Length", "0")]


# Connections


def test_one_connection_carries_one_answer_after_another(raw: RawUpstream, raw_upstream: Upstream) -> None:
    for answered in (
        OK,
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        OK.replace(b"200", b"429"),
    ):
        raw.script(answered, raw.KEEP)

    answers = []
    for _ in range(4):
        answer = raw_upstream.send(call(), ONE)
        answers.append((answer.status, content_of(answer)))

    assert answers == [(200, b"ok"), (200, b"ok"), (204, b""), (429, b"ok")]
    assert raw.connections == 1


def test_the_head_of_an_answer_has_no_body_and_keeps_its_connection(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", raw.KEEP)
    raw.script(OK, raw.KEEP)

    head = raw_upstream.send(call(method="HEAD", body=None), ONE)

    assert content_of(head) == b""
    assert dict(head.headers)["Content-Length"] == "99"
    assert content_of(raw_upstream.send(call(), ONE)) == b"ok"
    assert raw.connections == 1


@pytest.mark.parametrize(
    "answered",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "more than asked for", "two lengths"],
)
def test_a_connection_that_said_more_or_odd_things_is_not_used_again(
    raw: RawUpstream, raw_upstream: Upstream, answered: bytes
) -> None:
    raw.script(answered, raw.KEEP)
    raw.script(OK, raw.KEEP)

    contents = [content_of(raw_upstream.send(call(), ONE)) for _ in range(2)]

    assert contents == [b"ok", b"ok"]
    assert raw.connections == 2


@pytest.mark.parametrize("odd", [b"\0", b"\x01", b"\x1b[31m", b"\x7f", b"a\nb", b"a\rb"])
@pytest.mark.parametrize("status", [200, 429, 500])
def test_a_header_with_a_control_character_breaks_the_answer(
    raw: RawUpstream, raw_upstream: Upstream, odd: bytes, status: int
) -> None:
    raw.script(b"HTTP/1.1 %d Odd\r\nX-Odd: %b\r\nContent-Length: 2\r\n\r\nok" % (status, odd))

    with pytest.raises(AnswerLost):
        raw_upstream.send(call(), ONE)


def test_a_tab_in_a_header_is_no_harm(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(b"HTTP/1.1 200 OK\r\nX-Tab: a\tb\r\nContent-Length: 2\r\n\r\nok")

    answer = raw_upstream.send(call(), ONE)

    assert ("X-Tab", "a\tb") in answer.headers
    assert content_of(answer) == b"ok"


def test_a_few_interim_answers_pass_and_many_break_it_off(raw: RawUpstream, raw_upstream: Upstream) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    raw.script(hint * 19 + OK)
    raw.script(hint * 20 + OK)

    assert content_of(raw_upstream.send(call(), ONE)) == b"ok"
    with pytest.raises(AnswerLost):
        raw_upstream.send(call(), ONE)


def test_trailers_without_end_break_the_answer_off(raw: RawUpstream, raw_upstream: Upstream) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    raw.script(chunked + b"X-More: 1\r\n" * 20_000 + b"\r\n")
    raw.script(chunked + b"X-Few: 1\r\n\r\n")

    with closing(raw_upstream.send(call(), ONE)) as answer, pytest.raises(ConnectionResetError):
        b"".join(answer)
    assert content_of(raw_upstream.send(call(), ONE)) == b"ok"


def test_an_answer_in_chunks_of_one_byte_arrives_complete(raw: RawUpstream, raw_upstream: Upstream) -> None:
    content = bytes(range(33, 127)) * 2_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in content)
    raw.script(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert content_of(raw_upstream.send(call(), ONE)) == content


def test_unrequested_data_on_an_idle_connection_is_not_an_answer(raw: RawUpstream, raw_upstream: Upstream) -> None:
    raw.script(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", raw.KEEP)
    raw.script(OK, raw.KEEP)
    content_of(raw_upstream.send(call(), ONE))
    idle = raw_upstream._idle.take()
    assert idle
    raw_upstream._idle.put(idle)

    raw.go_on()
    assert is_soon(lambda: _has_news(idle.sock))
    content = content_of(raw_upstream.send(call(), ONE))

    assert content == b"ok"


def _has_news(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def test_a_connection_that_becomes_idle_after_the_end_is_closed(gemini: FakeGemini, upstream: Upstream) -> None:
    answer = upstream.send(call(), ONE)
    sock = answer._connection.sock

    upstream.close()
    content_of(answer)

    assert sock.fileno() == -1


def test_a_connection_that_the_upstream_closed_meanwhile_is_not_used(gemini: FakeGemini, upstream: Upstream) -> None:
    content_of(upstream.send(call(), ONE))

    gemini.stop()
    gemini.start()
    answer = upstream.send(call(), ONE)

    assert answer.status == 200
    content_of(answer)


def test_an_answer_that_is_closed_early_is_cut(gemini: FakeGemini, upstream: Upstream) -> None:
    gemini.hold = threading.Event()
    answer = upstream.send(call(STREAM), ONE)
    next(iter(answer))

    answer.close()

    assert gemini.wait_for(lambda: gemini.closed_early == 1)


def test_answers_do_not_mix_with_many_threads_at_once(gemini: FakeGemini, upstream: Upstream) -> None:
    wrong: list[int] = []

    def ask_often(size: int) -> None:
        for _ in range(10):
            body = b'{"contents": [{"parts": [{"text": "echo:%d"}]}]}' % size
            answered = json.loads(content_of(upstream.send(call(body=body), ONE)))
            if len(answered["candidates"][0]["content"]["parts"][0]["text"]) != size:
                wrong.append(size)

    threads = [threading.Thread(target=ask_often, args=(1000 * number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_refused_connection_means_that_nothing_was_sent() -> None:
    upstream = Upstream(f"http://127.0.0.1:{nobodys_port()}", connect_seconds=1, read_seconds=1)

    with pytest.raises(UpstreamUnreachable):
        upstream.send(call(), ONE)


@pytest.mark.parametrize(("fault", "is_timeout"), [(Fault.HANG, True), (Fault.RESET_BEFORE, False)])
def test_an_answer_that_never_comes_is_lost(gemini: FakeGemini, fault: Fault, is_timeout: bool) -> None:
    upstream = Upstream(gemini.url, connect_seconds=1, read_seconds=0.2)
    gemini.script("*", fault)

    with pytest.raises(AnswerLost) as lost:
        upstream.send(call(), ONE)

    assert lost.value.is_timeout == is_timeout
    assert ONE not in f"{lost.value!r} {lost.value.__cause__!r}"


# TLS


class TlsUpstream(RawUpstream):
    """The same behind TLS."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        super().__init__()

    @property
    def url(self) -> str:
        return super().url.replace("http://", "https://")

    def _wrap(self, sock: socket.socket) -> socket.socket:
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def make_certificate(path: Path, address: str) -> Path:
    """Write a self-signed certificate for an IP address, with its key, to one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake Gemini")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    written = certificate.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption())
    path.write_bytes(written)
    return path


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_proxy")
def test_a_tls_connection_carries_one_answer_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "tls.pem", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with TlsUpstream(certificate) as raw:
        upstream = Upstream(raw.url, connect_seconds=2, read_seconds=2)
        for _ in range(3):
            raw.script(OK, raw.KEEP)

        contents = [content_of(upstream.send(call(), ONE)) for _ in range(3)]
        upstream.close()

    assert contents == [b"ok", b"ok", b"ok"]
    assert raw.connections == 1
    assert raw.requests[0].startswith(b"POST /v1beta/models/")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"], ids=["not trusted", "of another host"])
def test_the_secret_is_never_sent_without_a_valid_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    certificate = make_certificate(tmp_path / "tls.pem", address)
    trusted = certificate if address == "127.0.0.2" else make_certificate(tmp_path / "other.pem", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with TlsUpstream(certificate) as raw:
        upstream = Upstream(raw.url, connect_seconds=2, read_seconds=2)

        with pytest.raises(UpstreamUnreachable):
            upstream.send(call(), ONE)

    assert raw.requests == []


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    ("name", "value", "credentials"),
    [
        ("HTTPS_PROXY", "http://name:word@127.0.0.1:{port}", b"name:word"),
        ("HTTPS_PROXY", "http://na%40me:p%40ss%3A%2Fw%C3%B6rd@127.0.0.1:{port}/", "na@me:p@ss:/wörd".encode()),
        ("https_proxy", "name:p@ss@127.0.0.1:{port}", b"name:p@ss"),
        ("ALL_PROXY", "'127.0.0.1:{port}'", b""),
        ("HTTPS_PROXY", "http://name:word@[::1]:{port}", b"name:word"),
    ],
)
def test_a_proxy_of_the_environment_sees_a_tunnel_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, credentials: bytes
) -> None:
    certificate = make_certificate(tmp_path / "tls.pem", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    family, host = (socket.AF_INET6, "::1") if "[" in value else (socket.AF_INET, "127.0.0.1")
    with TlsUpstream(certificate) as raw, socket.create_server((host, 0), family=family) as listener:
        raw.script(OK, raw.KEEP)
        heads: list[bytes] = []
        threading.Thread(target=_tunnel, args=(listener, raw.url, heads), daemon=True).start()
        monkeypatch.setenv(name, value.format(port=listener.getsockname()[1]))
        monkeypatch.setenv("NO_PROXY", "localhost")
        upstream = Upstream(raw.url, connect_seconds=2, read_seconds=2)

        content = content_of(upstream.send(call(), ONE))
        upstream.close()

    assert content == b"ok"
    assert heads[0].startswith(f"CONNECT {raw_host(raw.requests[0])} HTTP/1.".encode())
    shown = [line.split()[2] for line in heads[0].splitlines() if line.lower().startswith(b"proxy-authorization:")]
    assert [base64.b64decode(word) for word in shown] == ([credentials] if credentials else [])
    assert ONE.encode() not in heads[0]


def raw_host(request: bytes) -> str:
    """Return the Host of a request."""
    return next(line[6:] for line in request.decode("latin-1").splitlines() if line.lower().startswith("host: "))


def _tunnel(listener: socket.socket, url: str, heads: list[bytes]) -> None:
    client, _ = listener.accept()
    heads.append(client.recv(65_536))
    server = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def pump(source: socket.socket, sink: socket.socket) -> None:
        while content := source.recv(65_536):
            sink.sendall(content)
        sink.close()

    back = threading.Thread(target=pump, args=(server, client), daemon=True)
    back.start()
    pump(client, server)
    back.join()
