"""Log messages about clients with a wrong base URL."""

import http.client
import logging

import pytest
from django.test import Client

from proxy.client import base_urls
from tests.conftest import FLASH, GENERATE, TOKEN, Pool, ask, fake_secret
from tests.fake_gemini import FakeGemini

# As they stand in the request's first line: a test client would decode them.
ON_THE_WIRE = [
    f"/v1beta/models%2F{FLASH}%3AgenerateContent",
    f"//v1beta//models/{FLASH}:generateContent/",
    f"{GENERATE}%20%0A?key=%20{TOKEN}%0A",
    f"/V1BETA/Models/{FLASH}:generateContent?access_token=+{TOKEN}+",
    f"http://127.0.0.1/gemini{GENERATE}",
]
ODD = f"/gemini{GENERATE}"


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log records of a process that has not warned about base URLs yet."""
    monkeypatch.setattr(base_urls, "_logged", set())
    caplog.set_level(logging.INFO, base_urls.__name__)
    return caplog


def lines_of(said: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in said.records if record.name == base_urls.__name__]


def test_an_odd_path_is_served_and_reported_once(
    client: Client, gemini: FakeGemini, pool: Pool, said: pytest.LogCaptureFixture
) -> None:
    pool("one")

    statuses = [ask(client, path).status_code for path in [ODD, ODD, f"/proxy{GENERATE}?alt=sse", GENERATE]]

    assert statuses == [200] * 4
    assert {seen.path.partition("?")[0] for seen in gemini.seen} == {GENERATE}
    [line] = lines_of(said)
    assert f"Treated the path {ODD} as {GENERATE}: it has extra segments at the start" in line
    assert (
        "Use http://testserver as the base URL for Gemini clients and http://testserver/v1 for OpenAI clients." in line
    )


@pytest.mark.parametrize("port_of", ["front", "runserver"])
@pytest.mark.parametrize("target", ON_THE_WIRE)
def test_an_odd_path_on_the_wire_is_served(
    request: pytest.FixtureRequest, gemini: FakeGemini, pool: Pool, port_of: str, target: str
) -> None:
    pool("one")
    connection = http.client.HTTPConnection("127.0.0.1", request.getfixturevalue(port_of), timeout=5)

    connection.request("POST", target, b"{}", {} if TOKEN in target else {"x-goog-api-key": TOKEN})
    response = connection.getresponse()
    response.read()
    connection.close()

    assert response.status == 200
    assert [seen.path for seen in gemini.seen] == [GENERATE]


def test_each_kind_of_oddity_is_reported(client: Client, pool: Pool, said: pytest.LogCaptureFixture) -> None:
    pool("one")

    for path in (ODD, f"/v1{GENERATE}", f"{GENERATE}/", f"/v1beta/{FLASH}:generateContent", f"/v1/v1{GENERATE}"):
        ask(client, path)

    assert len(lines_of(said)) == 4


def test_a_correct_path_is_not_reported(client: Client, pool: Pool, said: pytest.LogCaptureFixture) -> None:
    pool("one")

    for path in (
        GENERATE,
        f"{GENERATE}?alt=sse",
        "/v1/chat/completions",
        f"/models/{FLASH}:generateContent",
        "/nothing",
    ):
        ask(client, path)

    assert not lines_of(said)


@pytest.mark.parametrize("secret", [TOKEN, TOKEN.replace("_", "%5F"), fake_secret("one")])
def test_a_credential_in_an_odd_path_is_masked(
    client: Client, pool: Pool, said: pytest.LogCaptureFixture, secret: str
) -> None:
    pool("one")

    ask(client, f"/{secret}{GENERATE}?key={secret}")

    [line] = lines_of(said)
    assert secret not in line
    assert TOKEN not in line
