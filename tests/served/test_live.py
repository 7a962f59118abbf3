"""The Live API over the pool, with gunicorn and real WebSockets."""

import asyncio
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from google import genai
from google.genai import types
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.live_google import LiveGoogle
from tests.service import SECRETS, Service, Usage, eventually, running
from tests.test_upstream import make_certificate

pytestmark = pytest.mark.process

PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
MODEL = "gemini-live-2.5-flash"
SETUP = json.dumps({"setup": {"model": f"models/{MODEL}"}})


@pytest.fixture(scope="module")
def fake() -> Iterator[LiveGoogle]:
    with LiveGoogle() as server:
        yield server


@pytest.fixture(scope="module")
def running_service(tmp_path_factory: pytest.TempPathFactory, fake: LiveGoogle) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("live"), fake.url, token="a-token-for-live") as service:
        yield service


@pytest.fixture
def own_service(tmp_path: Path, gemini: LiveGoogle) -> Iterator[Service]:
    with running(tmp_path, gemini.url) as service:
        yield service


def dial(service: Service, *, path: str = PATH, token: str | None = None, **options: Any) -> ClientConnection:
    headers = {"x-goog-api-key": token or service.token}
    url = service.url.replace("http", "ws") + path
    session: ClientConnection = connect(url, additional_headers=headers, compression=None, max_size=None, **options)
    return session


def turn(text: str) -> str:
    return json.dumps({"clientContent": {"turns": [{"role": "user", "parts": [{"text": text}]}], "turnComplete": True}})


def ask(session: ClientConnection, text: str) -> str:
    session.send(turn(text))
    first, last = json.loads(session.recv(10)), json.loads(session.recv(10))
    assert last["serverContent"]["turnComplete"]
    return str(first["serverContent"]["modelTurn"]["parts"][0]["text"])


def begin(session: ClientConnection) -> None:
    session.send(SETUP)
    assert json.loads(session.recv(10)) == {"setupComplete": {}}


def closing_of(session: ClientConnection) -> tuple[int | None, str | None]:
    with suppress(ConnectionClosed):
        while True:
            session.recv(10)
    return session.close_code, session.close_reason


def test_a_session_is_relayed_and_its_tokens_are_counted(service: Service, gemini: LiveGoogle) -> None:
    usage = service.usage()
    with dial(service) as session:
        begin(session)
        assert [ask(session, text) for text in ("Hello", "Grüße ✨", "x" * 200_000)] == [
            "Hello",
            "Grüße ✨",
            "x" * 200_000,
        ]
        audio = bytes(range(256)) * 4000
        session.send(audio)
        assert session.recv(10) == audio

    assert gemini.setups == [{"model": f"models/{MODEL}"}]
    assert gemini.secrets[0] in SECRETS
    assert service.token not in str(gemini.headers)
    assert "sec-websocket-extensions" not in gemini.headers[0]
    before = usage.get((gemini.secrets[0], MODEL), Usage(0, 0, 0, 0, 0, 0))
    added = Usage(1, 0, 0, 3 * 10, 3 * 7, 3 * 2)
    expected = Usage(*map(sum, zip(before, added, strict=True)))
    assert eventually(lambda: service.usage().get((gemini.secrets[0], MODEL)) == expected)
    assert eventually(lambda: gemini.closed == [1000])


@pytest.mark.parametrize("way", ["header", "?key=", "//ws", "Bearer"])
def test_the_token_is_accepted_in_every_form(service: Service, gemini: LiveGoogle, way: str) -> None:
    url = service.url.replace("http", "ws")
    path = f"/{PATH}" if way == "//ws" else PATH
    headers = {
        "header": {"x-goog-api-key": service.token},
        "Bearer": {"Authorization": f"Bearer {service.token}"},
    }.get(way, {})
    query = "" if headers else f"?key={service.token}"
    with connect(url + path + query, additional_headers=headers) as session:
        begin(session)

    assert gemini.paths == [PATH]
    assert service.token not in service.output + service.logs


@pytest.mark.parametrize(
    ("path", "token", "status"), [(PATH, "wrong", 401), ("/v1beta/models", None, 404), ("/ws/other", None, 404)]
)
def test_a_refusal_comes_before_the_upgrade(
    service: Service, gemini: LiveGoogle, path: str, token: str | None, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(service, path=path, token=token)

    assert refused.value.response.status_code == status
    assert not gemini.secrets


@pytest.mark.parametrize(
    "headers", [{"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Key": "short"}, {"Connection": "close"}]
)
def test_a_broken_handshake_is_refused(service: Service, headers: dict[str, str]) -> None:
    usual = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "x-goog-api-key": service.token,
    }  # fmt: skip
    assert requests.get(service.url + PATH, headers={**usual, **headers}, timeout=10).status_code == 400


def test_a_session_that_google_refuses_fails_over(own_service: Service, gemini: LiveGoogle) -> None:
    quota = "You exceeded your current quota, please check your plan and billing details."
    gemini.close(SECRETS[0], 1011, quota)
    gemini.close(SECRETS[1], 1008, "API key not valid. Please pass a valid API key.")
    gemini.close(SECRETS[2], 1008, "Your API key was reported as leaked. Please use another API key.")
    gemini.close(SECRETS[3], 1011, quota)
    for _ in range(3):
        with dial(own_service) as session:
            begin(session)
            assert ask(session, "Hello") == "Hello"

    assert gemini.secrets[-1] == SECRETS[4]
    assert len(set(gemini.secrets)) == len(gemini.secrets) - 2  # the last key begins three sessions
    faults = dict(own_service.db.rows("SELECT secret, fault FROM proxy_apikey WHERE fault <> ''"))
    assert faults.keys() == {SECRETS[1], SECRETS[2]} & set(gemini.secrets)
    assert sum(own_service.answers(MODEL).values()) == 3 + len(faults)


def test_any_other_refusal_is_passed_on(service: Service, gemini: LiveGoogle) -> None:
    for secret in SECRETS:
        gemini.close(secret, 1007, f"Invalid argument: models/nothing is not found, {secret}.")
    with dial(service) as session:
        session.send(SETUP)
        code, reason = closing_of(session)

    assert code == 1007
    assert "Invalid argument" in str(reason)
    assert not any(secret in str(reason) for secret in SECRETS)
    assert len(gemini.secrets) == 1


def test_a_key_in_a_later_close_reason_is_masked(service: Service, gemini: LiveGoogle) -> None:
    with dial(service) as session:
        begin(session)
        session.send(turn(f"close Quota of {gemini.secrets[0]} exceeded"))
        code, reason = closing_of(session)

    assert code == 1011
    assert str(reason).startswith("Quota of ")
    assert gemini.secrets[0] not in str(reason)
    assert eventually(lambda: not any(secret in service.output + service.logs for secret in SECRETS))


@pytest.mark.parametrize(
    ("setup", "code"), [("{}", 1002), ("no JSON", 1002), ('{"setup": {"model": 5}}', 1002), ("x" * 1_100_000, 1009)]
)
def test_a_first_message_that_is_no_setup_is_refused(
    service: Service, gemini: LiveGoogle, setup: str, code: int
) -> None:
    with dial(service) as session:
        with suppress(ConnectionClosed):
            session.send(setup)
        assert closing_of(session)[0] == code
    assert not gemini.secrets


def test_without_a_key_the_close_frame_says_why(own_service: Service, gemini: LiveGoogle) -> None:
    own_service.execute("UPDATE proxy_apikey SET is_enabled = FALSE")
    with dial(own_service) as session:
        session.send(SETUP)
        code, reason = closing_of(session)

    assert code == 1013
    assert "key" in str(reason)


def test_an_ephemeral_token_of_the_pool_is_accepted(service: Service, gemini: LiveGoogle) -> None:
    service.execute(
        "INSERT INTO proxy_resource (name, key_id, client, made_at, expires_at) "
        "SELECT 'auth_tokens/t1', id, '', CURRENT_TIMESTAMP, '2999-01-01' FROM proxy_apikey "
        f"WHERE secret = '{SECRETS[3]}'"
    )
    url = service.url.replace("http", "ws") + PATH + "Constrained"
    with connect(f"{url}?access_token=auth_tokens/t1", compression=None) as session:
        begin(session)
    with connect(url, additional_headers={"Authorization": "Token auth_tokens/t1"}) as session:
        begin(session)
    for query in ("?access_token=auth_tokens/t2", "?access_token=", ""):
        with pytest.raises(InvalidStatus) as refused:
            connect(url + query).__enter__()
        assert refused.value.response.status_code == 401

    assert gemini.paths == [f"{PATH}Constrained?access_token=auth_tokens/t1"] * 2
    assert gemini.secrets == ["", ""]
    assert requests.get(service.url + "/v1beta/models?access_token=auth_tokens/t1", timeout=10).status_code == 401


def test_a_session_is_resumed_in_its_project(service: Service, gemini: LiveGoogle) -> None:
    with dial(service) as session:
        begin(session)
        session.send(turn("handle"))
        handle = json.loads(session.recv(10))["sessionResumptionUpdate"]["newHandle"]
    for _ in range(4):
        with dial(service) as session:
            session.send(json.dumps({"setup": {"model": MODEL, "sessionResumption": {"handle": handle}}}))
            assert json.loads(session.recv(10)) == {"setupComplete": {}}

    assert len(set(gemini.secrets)) == 1


def test_a_client_that_leaves_ends_the_session_at_google(service: Service, gemini: LiveGoogle) -> None:
    with dial(service) as session:
        begin(session)
        session.socket.shutdown(socket.SHUT_RDWR)
        assert eventually(lambda: len(gemini.closed) == 1, 5)

    newest = "SELECT status, model_name FROM proxy_loggedrequest ORDER BY id DESC LIMIT 1"
    assert eventually(lambda: service.db.rows(newest) == [(101, MODEL)], 5)


def test_sessions_end_with_1001_when_the_service_stops(own_service: Service, gemini: LiveGoogle) -> None:
    with ExitStack() as opened:
        sessions = [opened.enter_context(dial(own_service)) for _ in range(4)]
        for session in sessions:
            begin(session)
        own_service.terminate()
        codes = [closing_of(session)[0] for session in sessions]
        own_service.wait(15)

    assert codes == [1001] * 4
    assert sum(own_service.answers(MODEL).values()) == 4


def test_open_sessions_are_shown(tmp_path: Path, gemini: LiveGoogle) -> None:
    with running(tmp_path, gemini.url, WEB_WORKERS="1") as service:
        browser, password = requests.Session(), re.search(r"password (\S+)", service.output)
        assert password
        page = browser.get(f"{service.url}/admin/login/?next=/dashboard/health/", timeout=30)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token
        form = {"username": "admin", "password": password[1], "csrfmiddlewaretoken": token[1]}
        browser.post(page.url, data=form | {"next": "/dashboard/health/"}, timeout=30)

        def shown() -> str:
            table = browser.get(f"{service.url}/dashboard/health/", timeout=30).text
            found = re.search(r"Open sessions of the Live API\D*(\d+)", table)
            return found[1] if found else table

        with dial(service) as one, dial(service) as two:
            begin(one)
            begin(two)
            assert shown() == "2"
        assert eventually(lambda: shown() == "0")


def test_a_hundred_sessions_at_once(service: Service, gemini: LiveGoogle) -> None:
    before = sum(service.answers(MODEL).values())
    with ExitStack() as opened:
        sessions = [opened.enter_context(dial(service)) for _ in range(100)]
        for session in sessions:
            begin(session)
        for number, session in enumerate(sessions):
            assert ask(session, f"number {number}") == f"number {number}"

    assert sum(service.answers(MODEL).values()) == before + 100


# Google's client, which insists on TLS


@pytest.fixture
def tls_port(tmp_path: Path, service: Service) -> Iterator[int]:
    """The port of a TLS proxy in front of the service."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path / "tls.pem", "127.0.0.1"))
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with source:
            with suppress(OSError):
                while received := source.recv(65_536):
                    target.sendall(received)
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client = context.wrap_socket(listener.accept()[0], server_side=True)
                ours = service.connect()
                for pair in ((client, ours), (ours, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_google_genai_talks_to_it_behind_tls(
    service: Service, gemini: LiveGoogle, tls_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
    options = types.HttpOptions(base_url=f"https://127.0.0.1:{tls_port}")

    async def talk() -> list[str]:
        client = genai.Client(api_key=service.token, http_options=options)
        async with client.aio.live.connect(model=MODEL, config=types.LiveConnectConfig()) as session:
            texts = []
            for text in ("Hello", "And again"):
                turns = types.Content(role="user", parts=[types.Part(text=text)])
                await session.send_client_content(turns=turns, turn_complete=True)
                texts += [message.text async for message in session.receive() if message.text]
            return texts

    assert asyncio.run(talk()) == ["Hello", "And again"]
    assert gemini.secrets[0] in SECRETS
