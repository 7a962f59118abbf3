"""What a Google project owns is found again after a SIGKILL, by every worker, and by OpenAI's client."""

from pathlib import Path

import openai
import pytest
from google import genai
from google.genai import types

from tests.conftest import FLASH
from tests.fake_gemini import FakeGemini
from tests.service import Service, running

pytestmark = pytest.mark.process


def test_a_resource_survives_a_power_cut_right_after_its_answer(tmp_path: Path, gemini: FakeGemini) -> None:
    with running(tmp_path, gemini) as service:
        names = []
        for _ in range(3):
            names.append(_create(service))
            service.kill()
            service.start().wait_until_ready()

        for name in names * 4:
            assert service.ask(json={"cachedContent": name}).status_code == 200
    lookups = [seen for seen in gemini.seen if seen.method == "GET"]
    assert not lookups


def _create(service: Service) -> str:
    with genai.Client(api_key=service.token, http_options=types.HttpOptions(base_url=service.url)) as client:
        config = types.CreateCachedContentConfig(ttl="600s", contents="Long")
        return str(client.caches.create(model=FLASH, config=config).name)


@pytest.mark.parametrize("base", ["v1", "v1beta/openai"])
def test_openai_uses_files_batches_and_caches(service: Service, gemini: FakeGemini, tmp_path: Path, base: str) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("{}\n")
    options = types.HttpOptions(base_url=service.url)
    with (
        genai.Client(api_key=service.token, http_options=options) as google,
        openai.OpenAI(api_key=service.token, base_url=f"{service.url}/{base}/") as client,
    ):
        file = google.files.upload(file=path, config=types.UploadFileConfig(mime_type="application/jsonl"))
        batch = client.batches.create(
            input_file_id=str(file.name), endpoint="/v1/chat/completions", completion_window="24h"
        )
        found = [client.batches.retrieve(batch.id).id for _ in range(5)]
        listed = [one.id for one in client.batches.list()]
        cached = {"extra_body": {"google": {"cached_content": _create(service)}}}
        texts = [
            client.chat.completions.create(
                model=FLASH, messages=[{"role": "user", "content": "Hi"}], extra_body=cached
            ).choices[0].message.content
            for _ in range(5)
        ]  # fmt: skip

    assert found == [batch.id] * 5
    assert batch.id in listed
    assert texts == [gemini.text] * 5
