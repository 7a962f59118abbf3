"""What is well-formed and still wrong is told before the service starts."""

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


@pytest.mark.parametrize(
    ("version", "ids"),
    [((3, 40, 1), ["proxy.W001"]), ((3, 51, 2), ["proxy.W001"]), ((3, 51, 3), []), ((3, 53, 4), []), ((4, 0, 0), [])],
)
def test_a_sqlite_that_can_corrupt_the_database_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], ids: list[str]
) -> None:
    monkeypatch.setattr(Database, "sqlite_version_info", version)

    assert [message.id for message in check_sqlite(None)] == ids


def test_every_message_says_what_to_do(settings: Settings) -> None:
    settings.PLACEHOLDER_TOKEN, settings.UPSTREAM_URL, settings.BIND = "", "", ""

    for message in check_settings(None):
        assert message.msg.endswith(".")
        assert message.hint
