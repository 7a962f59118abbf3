"""Requests with compressed bodies: their model is recognized, and they are forwarded unchanged."""

import gzip
import json
import zlib

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from proxy.models import DailyUsage, GeminiModel, Quota
from tests.conftest import FLASH, TOKEN, Pool
from tests.fake_gemini import FakeGemini

CHAT = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "model": FLASH}).encode()


@pytest.fixture(autouse=True)
def one_key(service: object, pool: Pool) -> None:
    pool("one")


def post(body: bytes, encoding: str, path: str = "/v1/chat/completions") -> int:
    headers = {"authorization": f"Bearer {TOKEN}", "content-encoding": encoding}
    response = Client(headers=headers).post(path, body, content_type="application/json")
    if response.streaming:
        b"".join(response)
    response.close()
    return int(response.status_code)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(CHAT, mtime=0)),
        ("GZIP", gzip.compress(CHAT, mtime=0)),
        ("x-gzip", gzip.compress(CHAT[:20], mtime=0) + gzip.compress(CHAT[20:], mtime=0)),
        ("deflate", zlib.compress(CHAT)),
        ("identity", CHAT),
    ],
    ids=["gzip", "capitals", "two members", "deflate", "identity"],
)
def test_a_compressed_body_is_counted_for_its_model_and_travels_on_as_it_came(
    gemini: FakeGemini, encoding: str, body: bytes
) -> None:
    post(body, encoding)

    assert gemini.seen[0].body == body
    assert [value for name, value in gemini.seen[0].headers if name.lower() == "content-encoding"] == [encoding]
    assert DailyUsage.objects.get().model_name == FLASH


def test_the_tokens_of_a_compressed_body_are_estimated_from_what_is_in_it(gemini: FakeGemini) -> None:
    large = json.dumps({"contents": [{"parts": [{"text": "word " * 80_000}]}]}).encode()

    GeminiModel.objects.begin(FLASH)  # its windows are counted from the first claim on

    post(gzip.compress(large), "gzip", f"/v1beta/models/{FLASH}:generateContent")

    assert Quota.objects.get(model_name=FLASH).minute_tokens > 50_000


def test_a_body_that_unpacks_to_too_much_is_refused(gemini: FakeGemini, settings: Settings) -> None:
    settings.MAX_BODY_MB = 1

    assert post(gzip.compress(CHAT + b" " * 1_100_000), "gzip") == 413
    assert not gemini.seen


@pytest.mark.parametrize(
    "body", [b"no gzip", gzip.compress(CHAT, mtime=0)[:30], b"\x1f\x8b"], ids=["none", "cut", "head"]
)
def test_a_damaged_body_is_left_to_google(gemini: FakeGemini, body: bytes) -> None:
    post(body, "gzip")

    assert gemini.seen[0].body == body
