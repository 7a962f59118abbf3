"""The life of a request, against a real HTTP upstream and a real database file."""

import json
from typing import Any

from django.test import Client

from proxy.ledger import Ledger
from proxy.models import DailyUsage
from tests.conftest import FLASH, Pool, fake_secret
from tests.fake_gemini import FakeGemini


def ask(client: Client, path: str = f"/v1beta/models/{FLASH}:generateContent", **kwargs: Any) -> Any:
    """Post a small request and return the response, read to its end."""
    body = json.dumps({"contents": [{"parts": [{"text": "Hello"}]}]})
    return client.post(path, body, content_type="application/json", **kwargs)


def test_an_exhausted_key_hands_over_to_the_next(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    pool("one", "two", "three")
    gemini.exhaust(fake_secret("one"), fake_secret("two"))

    response = ask(client)

    assert response.status_code == 200
    assert gemini.secrets_seen == [fake_secret("one"), fake_secret("two"), fake_secret("three")]


def test_a_refusal_and_an_answer_are_counted_each(
    client: Client, gemini: FakeGemini, pool: Pool, service: Ledger
) -> None:
    pool("one", "two")
    gemini.exhaust(fake_secret("one"))

    response = ask(client)
    response.getvalue()
    response.close()
    service.close()

    assert list(DailyUsage.objects.order_by("key").values_list("answers", "refusals", "model_name")) == [
        (0, 1, FLASH),
        (1, 0, FLASH),
    ]
