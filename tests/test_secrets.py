"""No key or token in answers, headers, log lines, pages or the text of objects."""

import gzip
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from threading import Event
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from proxy import views
from proxy.ledger import Ledger
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Project, Quota, Use
from proxy.pool.adding import add_keys
from proxy.security.masking import MaskingFormatter
from tests import gemini_errors as errors
from tests.conftest import (
    CHAT,
    GENERATE,
    STREAM,
    RawUpstream,
    ReplaceUpstream,
    claim_of,
    locked_database,
    nobodys_port,
    usage_of_today,
)
from tests.fake_gemini import FakeGemini, Fault, Reply

TOKEN = "tok-9f1c7d20-unique-e4b8"
OLD_STYLE = "AIzaSyQ7x_unique0old1style2key3-Zw8Kp4T"
NEW_STYLE = "AQ.Ab8Rn_unique-auth-key_0123456789-abcdefghijXYZ"
ODD = "some-gateway:odd/unique+key=77"
ALL = (OLD_STYLE, NEW_STYLE, ODD)


def leaks(text: str) -> list[str]:
    """Return our secrets that are in `text`, complete or with more than the last four characters."""
    return [secret for secret in (TOKEN, *ALL) if secret in text or secret[:-4] in text or secret[5:-5] in text]


class Lines(io.StringIO):
    """The output of all loggers, formatted as in the service."""

    def said(self) -> str:
        return self.getvalue()


@pytest.fixture
def lines(settings: Settings) -> Iterator[Lines]:
    """Log everything, including DEBUG, with the formatter from the settings."""
    settings.PLACEHOLDER_TOKEN = TOKEN
    written = Lines()
    handler = logging.StreamHandler(written)
    handler.setFormatter(MaskingFormatter(django_settings.LOGGING["formatters"]["masked"]["fmt"], [TOKEN]))
    names = [
        "",
        "django",
        "django.request",
        "django.server",
        "django.db.backends",
        "urllib3",
        "proxy",
        "gunicorn.error",
    ]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(params=ALL, ids=["old style", "new style", "odd"])
def secret(request: pytest.FixtureRequest, service: Ledger, lines: Lines) -> str:
    """A key of each format, the only one in the pool."""
    add_keys([request.param], timezone.now(), name="mine")
    return str(request.param)


def ask(path: str = GENERATE, **kwargs: Any) -> Any:
    """Send the token in the query, where logs could show it most easily. Return the response, with its `body`."""
    separator = "&" if "?" in path else "?"
    response: Any = Client().post(f"{path}{separator}key={TOKEN}", "{}", content_type="application/json", **kwargs)
    body = b""
    with suppress(ConnectionError):
        for piece in response if not response.streaming else response.streaming_content:
            body += piece
    response.body = body
    return response


def shown_by(response: Any) -> str:
    """Return everything that a client sees of a response, decompressed if possible."""
    body = response.body
    with suppress(OSError, EOFError):
        body += gzip.decompress(body)
    return f"{response.status_code} {response.reason_phrase} {dict(response.headers)} {body.decode('latin-1')}"


def echo(secret: str) -> Reply:
    """Return an error of any status in which Google's message repeats the key several times."""
    return errors.suspended(secret)


def in_status(status: int, secret: str) -> Reply:
    return Reply(status, echo(secret).body)


FAILURES: dict[str, Callable[[str], list[Reply | Fault]]] = {
    "an answer": lambda secret: [],
    "suspended": lambda secret: [echo(secret)],
    "200": lambda secret: [in_status(200, secret)],
    "400": lambda secret: [in_status(400, secret)],
    "401": lambda secret: [in_status(401, secret)],
    "404": lambda secret: [in_status(404, secret)],
    "409": lambda secret: [in_status(409, secret)],
    "429": lambda secret: [in_status(429, secret)],
    "429 that is a page": lambda secret: [Reply(429, f"<p>{secret}</p>".encode(), {"Content-Type": "text/html"})],
    "500": lambda secret: [in_status(500, secret)] * 3,
    "503": lambda secret: [in_status(503, secret)] * 3,
    "502 that is a page": lambda secret: [Reply(502, f"<p>{secret} {secret}</p>".encode())],
    "a header": lambda secret: [Reply(200, b"{}", {"X-Debug": f"consumer=api_key:{secret}"})],
    "a header of an error": lambda secret: [Reply(400, b"{}", {"X-Debug": f"{secret} {secret}"})],
    "a redirect": lambda secret: [Reply(302, b"", {"Location": f"https://elsewhere.example/?key={secret}"})],
    "a cookie": lambda secret: [Reply(200, b"{}", {"Set-Cookie": f"key={secret}"})],
    "lost": lambda secret: [Fault.RESET_BEFORE],
    "broken off": lambda secret: [Fault.RESET_MIDDLE],
}


@pytest.mark.parametrize("packs", ["gzip", "identity"])
@pytest.mark.parametrize("path", [GENERATE, STREAM, CHAT], ids=["native", "SSE", "OpenAI"])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_upstream_answer_reveals_a_key_or_the_token(
    gemini: FakeGemini,
    secret: str,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    *,
    failure: str,
    path: str,
    packs: str,
) -> None:
    monkeypatch.setattr("proxy.ledger.bookings.pause_ns", lambda overloads: 1_000_000)  # after a 503
    gemini.script("*", *FAILURES[failure](secret))

    responses = [ask(path, headers={"accept-encoding": packs}) for _ in range(2)]

    usage_of_today()
    assert leaks("".join(map(shown_by, responses))) == []
    assert leaks(lines.said()) == []
    assert leaks(repr(list(ApiKey.objects.values("fault_reason", "name", "fault")))) == []
    assert {seen.secret for seen in gemini.seen} <= {secret}


def test_a_compressed_answer_that_names_the_key_does_not_hand_it_on(
    gemini: FakeGemini, secret: str, lines: Lines
) -> None:
    gemini.script("*", in_status(200, secret))

    response = ask(headers={"accept-encoding": "gzip"})

    assert leaks(shown_by(response)) == []


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 10, 20])
def test_a_key_cut_in_two_by_a_stream_does_not_come_out(
    raw: RawUpstream, secret: str, replace_upstream: ReplaceUpstream, *, cut: int
) -> None:
    replace_upstream(raw.url)
    before = b'data: {"error": {"message": "Consumer api_key:' + secret[:cut].encode()
    after = secret[cut:].encode() + b' has been suspended."}}\r\n\r\n'
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw.script(head + b"%x\r\n%b\r\n" % (len(before), before), b"%x\r\n%b\r\n0\r\n\r\n" % (len(after), after), raw.KEEP)
    response: Any = Client().post(f"{STREAM}&key={TOKEN}", "{}", content_type="application/json")
    pieces = iter(response.streaming_content)

    body = next(pieces)
    raw.go_on()
    body += b"".join(pieces)

    assert leaks(body.decode()) == []
    assert body.startswith(b'data: {"error": {"message": "Consumer api_key:')
    assert body.endswith(b' has been suspended."}}\r\n\r\n')


def test_our_own_failure_reveals_neither_key_nor_token(
    gemini: FakeGemini, secret: str, lines: Lines, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"with {secret} and {TOKEN} at /v1/models?key={TOKEN}")

    responses = []
    places = [
        "proxy.views.relay",
        "proxy.views.read_call",
        "proxy.upstream.exchange.Upstream.send",
        "proxy.ledger.scheduler.Scheduler.grant",
    ]
    for where in places:
        for is_debug in (False, True):
            settings.DEBUG = is_debug
            with monkeypatch.context() as patch:
                patch.setattr(where, fail)
                responses.append(ask())

    assert [response.status_code for response in responses] == [500] * 6 + [503] * 2
    assert leaks("".join(map(shown_by, responses))) == []
    if secret != ODD:  # nobody can know an odd key from a word in somebody's exception
        assert leaks(lines.said()) == []


@pytest.mark.parametrize("trouble", ["nobody there", "hang", "exhausted", "wrong token", "odd path", "too large"])
def test_our_own_errors_reveal_neither_key_nor_token(
    gemini: FakeGemini,
    secret: str,
    lines: Lines,
    *,
    replace_upstream: ReplaceUpstream,
    settings: Settings,
    trouble: str,
) -> None:
    path = GENERATE
    match trouble:
        case "nobody there":
            replace_upstream(f"http://127.0.0.1:{nobodys_port()}")
        case "hang":
            replace_upstream(gemini.url, 0.05)
            gemini.script("*", Fault.HANG)
        case "exhausted":
            gemini.exhaust(secret)
        case "wrong token":
            path = f"{GENERATE}?key={secret}"
            settings.PLACEHOLDER_TOKEN = "another"
        case "odd path":
            path = f"/v1/..%2f{TOKEN}/{secret if secret != ODD else ''}"
        case _:
            settings.MAX_BODY_MB = 0.000001

    response = ask(path)

    assert response.status_code >= 400
    assert leaks(shown_by(response)) == []
    assert leaks(lines.said()) == []


def test_a_locked_database_reveals_neither_key_nor_token(
    gemini: FakeGemini, secret: str, lines: Lines, impatient: Ledger
) -> None:
    with locked_database():
        response = ask()

    assert response.status_code == 503
    assert leaks(shown_by(response)) == []
    assert leaks(lines.said()) == []


def test_request_lines_with_a_token_are_masked_in_every_log(front: int, gemini: FakeGemini, lines: Lines) -> None:
    add_keys([OLD_STYLE], timezone.now())
    paths = [
        f"{GENERATE}?key={TOKEN}",
        f"{GENERATE}?key=wrong-token&access_token={TOKEN}",
        f"/v1beta/models?pageSize=1&key={TOKEN}",
        f"/v1/unknown?KEY={TOKEN}",
        f"/healthz?key={TOKEN}",
        f"/dashboard/?key={TOKEN}",
        f"/v1/x?key={OLD_STYLE}",
        f"/v1/{OLD_STYLE}?key={NEW_STYLE}",
        f"/v1/x?key={TOKEN[:5]}%2D{TOKEN[6:]}",
    ]
    connection = HTTPConnection("127.0.0.1", front, timeout=5)

    for path in paths:
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()

    said = lines.said()
    assert said.count("HTTP/1.1") >= len(paths)
    assert leaks(said) == []
    assert "wrong-token" not in said


@pytest.mark.parametrize("kind", ["page", "text"])
@pytest.mark.parametrize("is_debug", [True, False])
@pytest.mark.parametrize("secret", [OLD_STYLE, NEW_STYLE], ids=["old style", "new style"])
def test_an_error_in_the_admin_shows_neither_key_nor_token(
    service: Ledger,
    lines: Lines,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    secret: str,
    is_debug: bool,
    kind: str,
) -> None:
    settings.DEBUG = is_debug
    client = Client(raise_request_exception=False, headers={"x-goog-api-key": TOKEN})
    client.force_login(User.objects.create_superuser("somebody"))

    def fail(secrets: list[str], *_: object, **__: object) -> None:
        local = [*secrets, {"token": TOKEN}]
        raise RuntimeError(f"Could not add {local}")

    monkeypatch.setattr("proxy.admin.keys.add_keys", fail)
    headers = {"accept": "text/plain"} if kind == "text" else {}
    response: Any = client.post(
        f"/admin/proxy/apikey/add/?key={TOKEN}", {"secrets": secret, "name": "", "project_name": ""}, headers=headers
    )
    response.body = response.content

    assert response.status_code == 500
    assert ("RuntimeError" in response.content.decode()) == is_debug
    assert leaks(shown_by(response)) == []
    assert leaks(lines.said()) == []


def test_pages_for_people_show_no_key(service: Ledger, lines: Lines, gemini: FakeGemini, client: Client) -> None:
    add_keys(ALL, timezone.now())
    client.force_login(User.objects.create_superuser("somebody"))
    gemini.script(OLD_STYLE, echo(OLD_STYLE))
    gemini.script(NEW_STYLE, errors.per_day_long())
    gemini.script(ODD, echo(ODD))
    ask()
    usage_of_today()
    first = ApiKey.objects.order_by("id")[0].pk
    paths = [
        *("/dashboard/", "/admin/", "/admin/proxy/apikey/", "/admin/proxy/apikey/add/", "/admin/proxy/dailyusage/"),
        *(f"/admin/proxy/apikey/{first}/change/", f"/admin/proxy/apikey/{first}/history/"),
        *(f"/admin/proxy/apikey/{first}/delete/", "/admin/proxy/exhaustionevent/", "/readyz", "/healthz"),
        *("/admin/proxy/apikey/?q=unique", "/admin/proxy/quota/", "/admin/proxy/project/"),
        *(f"/admin/proxy/project/{project}/change/" for project in Project.objects.values_list("id", flat=True)),
        *(f"/admin/proxy/quota/{quota.pk}/change/" for quota in Quota.objects.of_models()),
    ]

    responses = [client.get(path) for path in paths]

    assert {response.status_code for response in responses} == {200}
    assert leaks("".join(response.content.decode() for response in responses)) == []


def test_keys_that_are_pasted_again_or_malformed_are_not_shown_back_in_the_log(
    service: Ledger, lines: Lines, client: Client
) -> None:
    client.force_login(User.objects.create_superuser("somebody"))
    for pasted in (OLD_STYLE, OLD_STYLE, f"{NEW_STYLE}\n{ODD}", f"{OLD_STYLE}x"):
        client.post("/admin/proxy/apikey/add/", {"secrets": pasted, "name": "", "project_name": ""})
    history = client.get(f"/admin/proxy/apikey/{ApiKey.objects.get().pk}/history/").content.decode()

    assert leaks(lines.said()) == []
    assert leaks(history) == []


def test_the_texts_of_objects_name_no_key(service: Ledger, lines: Lines, gemini: FakeGemini) -> None:
    add_keys(ALL, timezone.now())
    claims = [claim_of(service) for _ in ALL]
    gemini.exhaust(*ALL)
    ask()
    usage_of_today()
    models = (ApiKey, Project, GeminiModel, Quota, Use, DailyUsage, ExhaustionEvent)
    rows = [row for model in models for row in model._default_manager.all()]

    texts = [f"{thing} {thing!r}" for thing in [*claims, *rows, service, views.upstream, ApiKey.objects.all()]]

    assert {type(row) for row in rows} == set(models)
    assert len(rows) >= 12
    assert leaks("".join(texts)) == []


def test_every_handler_of_every_logger_masks() -> None:
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    mails = [handler for logger in loggers for handler in logger.handlers if "AdminEmail" in type(handler).__name__]

    ours = {
        f"{logger.name}: {handler}"
        for logger in loggers
        for handler in logger.handlers
        if not isinstance(handler.formatter, MaskingFormatter)
        and handler not in mails
        and not isinstance(handler, logging.NullHandler)
        and not type(handler).__module__.startswith(("_pytest", "pytest"))
    }

    assert ours == set()
    assert not (mails and django_settings.ADMINS)


def test_a_stream_that_is_held_and_left_names_no_key(gemini: FakeGemini, secret: str, lines: Lines) -> None:
    gemini.hold = Event()
    response: Any = Client().post(f"{STREAM}&key={TOKEN}", "{}", content_type="application/json")
    first = next(iter(response.streaming_content))

    response.close()

    assert gemini.wait_for(lambda: gemini.closed_early == 1)
    assert json.loads(first[6:].split(b"\r\n")[0])["candidates"]
    assert leaks(first.decode() + lines.said()) == []
