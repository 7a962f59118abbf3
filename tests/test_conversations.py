"""Conversations stay with one project, where Google's implicit cache makes their turns cheaper."""

import json
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.test import Client
from pytest_django.fixtures import Settings

from proxy.conversations import Conversations
from proxy.gemini.conversation import beginnings_of
from proxy.models import ApiKey
from tests.conftest import CHAT, FLASH, GENERATE, STREAM, Pool, ask, fake_secret
from tests.fake_gemini import FakeGemini
from tests.service import Service, running

FIVE = ("one", "two", "three", "four", "five")


@pytest.fixture
def table(tmp_path: Path) -> Conversations:
    return Conversations(tmp_path / "conversations")


def turns(count: int, subject: str = "Hello", *, is_openai: bool = False) -> list[dict[str, Any]]:
    """Return the bodies of the turns of a conversation."""
    roles = ("user", "assistant" if is_openai else "model")
    messages = [
        {"role": roles[number % 2], "content": f"{subject} {number}"}
        if is_openai
        else {"role": roles[number % 2], "parts": [{"text": f"{subject} {number}"}]}
        for number in range(2 * count - 1)
    ]
    if is_openai:
        system = {"role": "system", "content": "Be brief."}
        return [{"model": FLASH, "messages": [system, *messages[: 2 * turn + 1]]} for turn in range(count)]
    return [{"contents": messages[: 2 * turn + 1]} for turn in range(count)]


def beginnings(body: Any, model: str = FLASH) -> tuple[int, ...]:
    return beginnings_of(json.dumps(body).encode(), model)


# Recognition


def test_each_turn_begins_like_the_one_before() -> None:
    for is_openai in (False, True):
        first, second, third = map(beginnings, turns(3, is_openai=is_openai))
        assert [len(first), len(second), len(third)] == [1, 3, 5]
        assert second[:1] == first
        assert third[:3] == second


@pytest.mark.parametrize(
    "change",
    [
        {"systemInstruction": {"parts": [{"text": "Be long."}]}},
        {"tools": [{"googleSearch": {}}]},
        {"contents": [{"role": "user", "parts": [{"text": "Goodbye"}]}]},
    ],
)
def test_another_beginning_is_another_conversation(change: dict[str, Any]) -> None:
    [body] = turns(1)
    assert beginnings(body) != beginnings(body | change)
    assert beginnings(body) != beginnings(body, "gemini-2.5-pro")


def test_spaces_and_other_settings_do_not_matter() -> None:
    assert beginnings_of(b'{"contents": [{"role": "user", "parts": []}], "a": 1}', FLASH) == beginnings_of(
        b'{"generationConfig": {}, "contents":[{"role":"user","parts":[]}]}', FLASH
    )


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{", b'"a"', b'{"contents": "a"}', b'{"contents": null}', b"[" * 100_000, b"\xff"),
        b'{"contents": [{"a": [1]}], "tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_anything_else_is_no_conversation(body: bytes) -> None:
    assert beginnings_of(body, FLASH) == ()


@pytest.mark.parametrize("depth", [100, 500, 900, 5000, 50_000])
def test_deep_nesting_does_no_harm(depth: int) -> None:
    body = b'{"contents": [{"a": ' + b"[" * depth + b"]" * depth + b"}]}"
    assert len(beginnings_of(body, FLASH)) <= 1


def test_a_long_conversation_is_compared_at_its_end() -> None:
    *_, before, last = map(beginnings, turns(100))
    assert len(last) == 32
    assert before[-1] in last


# Memory


def test_a_single_question_prefers_nothing(table: Conversations) -> None:
    table.remember([1], 7)
    assert table.project_of([1]) is None
    assert table.project_of([]) is None
    assert table.project_of([1, 2]) == 7


def test_the_longest_beginning_wins(table: Conversations) -> None:
    table.remember([1], 7)
    table.remember([1, 2, 3], 8)
    assert table.project_of([1, 2, 3, 4, 5]) == 8


def test_all_workers_share_the_table_and_its_size_is_bounded(table: Conversations, tmp_path: Path) -> None:
    other = Conversations(tmp_path / "conversations")
    for number in range(1, 200_000):
        table.remember([number * 2_654_435_761 % 2**64], number % 100 + 1)
    table.remember([11], 5)

    assert other.project_of([11, 12]) == 5
    assert (tmp_path / "conversations").stat().st_size == 2**20
    assert (tmp_path / "conversations").stat().st_mode & 0o777 == 0o600


def test_a_conversation_is_forgotten_after_an_hour(table: Conversations) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        table.remember([1], 7)
        clock.shift(3600)
        assert table.project_of([1, 2]) == 7
        clock.shift(60)
        assert table.project_of([1, 2]) is None


def test_a_table_that_cannot_be_used_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = Conversations(tmp_path / "missing" / "conversations")
    for _ in range(2):
        broken.remember([1], 7)
        assert broken.project_of([1, 2]) is None
    assert len(caplog.records) == 1


# Whose key is used


@pytest.fixture
def keys(pool: Pool, gemini: FakeGemini) -> list[ApiKey]:
    return [key for name in FIVE for key in pool(name, project=name)]


@pytest.mark.parametrize(("path", "is_openai"), [(GENERATE, False), (STREAM, False), (CHAT, True)])
@pytest.mark.usefixtures("keys")
def test_ten_turns_are_answered_by_one_project(client: Client, gemini: FakeGemini, path: str, is_openai: bool) -> None:
    for body in turns(10, is_openai=is_openai):
        assert ask(client, path, body).status_code == 200

    assert len(set(gemini.secrets_seen)) == 1


@pytest.mark.usefixtures("keys")
def test_single_questions_keep_rotating(client: Client, gemini: FakeGemini) -> None:
    for _ in range(10):
        ask(client)

    assert sorted(gemini.secrets_seen.count(fake_secret(name)) for name in FIVE) == [2] * 5


@pytest.mark.usefixtures("keys")
def test_a_spent_project_is_skipped_and_the_next_one_is_kept(client: Client, gemini: FakeGemini) -> None:
    first, *others = turns(6)
    ask(client, GENERATE, first)
    gemini.exhaust(gemini.secrets_seen[0])
    assert [ask(client, GENERATE, body).status_code for body in others] == [200] * 5

    assert len(set(gemini.secrets_seen[2:])) == 1
    assert gemini.secrets_seen[2] != gemini.secrets_seen[0]


@pytest.mark.usefixtures("keys")
def test_the_setting_turns_it_off(client: Client, gemini: FakeGemini, settings: Settings) -> None:
    settings.KEEP_CONVERSATIONS = False
    for body in turns(10):
        ask(client, GENERATE, body)

    assert len(set(gemini.secrets_seen)) == 5


@pytest.mark.process
def test_two_workers_keep_a_conversation_together(tmp_path: Path, gemini: FakeGemini) -> None:
    with running(tmp_path, gemini) as service:
        for subject in ("a", "b", "c"):
            before = len(gemini.seen)
            assert {_turn(service, body) for body in turns(8, subject)} == {200}
            assert len(set(gemini.secrets_seen[before:])) == 1


def _turn(service: Service, body: dict[str, Any]) -> int:
    return service.ask(json=body).status_code
