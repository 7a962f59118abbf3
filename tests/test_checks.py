"""Settings that are well-formed but wrong are reported before the service starts."""

import pytest
from pytest_django import Settings

from proxy.checks import check_settings, check_sqlite
from proxy.sqlite.base import Database


def ids_of(settings: Settings, name: str, value: object) -> list[str | None]:
    setattr(settings, name, value)
    return [message.id for message in check_settings(None)]


def test_the_defaults_are_fine() -> None:
    assert check_settings(None) == []


@pytest.mark.parametrize("token", ["", "  "])
def test_an_empty_token_is_an_error(settings: Settings, token: str) -> None:
    assert ids_of(settings, "PLACEHOLDER_TOKEN", token) == ["proxy.E001"]


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "generativelanguage.googleapis.com", "ftp://example.org", "http://", "https:///v1", "http://[::1"],
)
def test_an_upstream_that_is_no_address_is_an_error(settings: Settings, url: str) -> None:
    assert ids_of(settings, "UPSTREAM_URL", url) == ["proxy.E002"]


@pytest.mark.parametrize(
    "url",
    [
        "https://generativelanguage.googleapis.com",
        "http://127.0.0.1:9001",
        "https://gateway.example/gemini",
        "http://[::1]:80",
    ],
)
def test_an_upstream_may_be_any_http_address(settings: Settings, url: str) -> None:
    assert ids_of(settings, "UPSTREAM_URL", url) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org?key=a",
        "https://example.org/#a",
        "https://name:word@example.org",
        "https://example.org/a b",
        "https://exa\nmple.org",
        "//example.org",
    ],
)
def test_an_upstream_that_cannot_be_sent_as_it_is_is_an_error(settings: Settings, url: str) -> None:
    assert ids_of(settings, "UPSTREAM_URL", url) == ["proxy.E002"]
    assert "word" not in str(check_settings(None))


def test_a_version_that_was_removed_from_the_url_is_reported(settings: Settings) -> None:
    settings.UPSTREAM_VERSION = "/v1beta"

    [message] = check_settings(None)

    assert message.id == "proxy.W002"
    assert f"ends in /v1beta, but clients send the version themselves. {settings.UPSTREAM_URL} is used" in message.msg


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value",
    [
        "socks5://name:word@127.0.0.1:1080",
        "https://name:word@127.0.0.1",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:port",
        "http://[::1",
        "http://name:wo#rd@127.0.0.1:8080",
        "http://name:12/word@127.0.0.1:8080",
        "http://127.0.0.1:8080/word",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for other in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)

    [message] = check_settings(None)

    assert message.id == "proxy.E005"
    assert name in message.msg
    assert "word" not in message.msg
    monkeypatch.setenv("NO_PROXY", "googleapis.com")
    assert check_settings(None) == []


@pytest.mark.parametrize(
    "value", ["", " ", "http://127.0.0.1:8080", "127.0.0.1:8080", "proxy", "http://a:p%40ss@[::1]:1/"]
)
def test_a_proxy_may_be_written_in_many_ways(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", value)

    assert check_settings(None) == []


@pytest.mark.parametrize(("status", "ids"), [(503, []), (429, []), (418, ["proxy.E003"]), (200, ["proxy.E003"])])
def test_a_full_pool_answers_503_or_429(settings: Settings, status: int, ids: list[str]) -> None:
    assert ids_of(settings, "EXHAUSTED_STATUS", status) == ids


@pytest.mark.parametrize(
    ("bind", "ids"),
    [
        ("0.0.0.0:5000", []),
        ("[::]:5000", []),
        ("127.0.0.1:5000, [::1]:5000", []),
        ("5000", ["proxy.E004"]),
        ("0.0.0.0:", ["proxy.E004"]),
        ("0.0.0.0:http", ["proxy.E004"]),
        ("0.0.0.0:70000", ["proxy.E004"]),
        ("0.0.0.0:5000,localhost", ["proxy.E004"]),
    ],
)
def test_every_address_to_listen_on_needs_a_port(settings: Settings, bind: str, ids: list[str]) -> None:
    assert ids_of(settings, "BIND", bind) == ids


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("version", "ids"),
    [((3, 40, 1), ["proxy.W001"]), ((3, 51, 2), ["proxy.W001"]), ((3, 51, 3), []), ((3, 53, 4), []), ((4, 0, 0), [])],
)
def test_a_sqlite_that_can_corrupt_the_database_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], ids: list[str]
) -> None:
    monkeypatch.setattr(Database, "sqlite_version_info", version)

    assert [message.id for message in check_sqlite(None)] == ids


def test_every_message_has_a_hint(settings: Settings) -> None:
    settings.PLACEHOLDER_TOKEN, settings.UPSTREAM_URL, settings.BIND = "", "", ""

    for message in check_settings(None):
        assert message.msg.endswith(".")
        assert message.hint
