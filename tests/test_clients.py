"""Official clients with the running service: google-genai 3.x and 2.x, openai, LiteLLM, google-genai's own tests."""

import asyncio
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from threading import Event
from typing import Any

import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.conftest import FLASH
from tests.fake_gemini import PROMPT_TOKENS, TOTAL_TOKENS, FakeGemini
from tests.service import ROOT, SECRETS, Service, running

pytestmark = pytest.mark.process

EXHAUSTED = f"{FLASH}-exhausted"
EMBEDDING = "gemini-embedding-001"
TEXT = "Grüße from a fake Gemini: one, two, three ✨"
SCRIPTS = ROOT / "tests" / "clients"
OTHER_PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
in_other_venv = pytest.mark.skipif(
    not OTHER_PYTHON.exists(), reason="google-genai 2.x and LiteLLM live in .venv/clients, which `make test` makes"
)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeGemini]:
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def running_service(tmp_path_factory: pytest.TempPathFactory, fake: FakeGemini) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("clients"), fake, token="a-token-for-clients") as service:
        yield service


@pytest.fixture
def gemini(fake: FakeGemini) -> FakeGemini:
    fake.reset()
    for secret in SECRETS:
        fake.know(secret)
    fake.exhaust(*SECRETS, model=EXHAUSTED)
    return fake


@pytest.fixture
def service(running_service: Service, gemini: FakeGemini) -> Service:
    return running_service


@pytest.fixture(params=["v1", "v1beta"])
def google(request: pytest.FixtureRequest, service: Service) -> Iterator[genai.Client]:
    options = types.HttpOptions(base_url=service.url, api_version=request.param)
    with genai.Client(api_key=service.token, http_options=options) as client:
        yield client


@pytest.fixture(params=["v1", "v1beta/openai"])
def openai_client(request: pytest.FixtureRequest, service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=service.token, base_url=f"{service.url}/{request.param}/") as client:
        yield client


def script_output(name: str, service: Service) -> dict[str, Any]:
    """Run a script of tests/clients in the clients' environment, and return its results."""
    command = [str(OTHER_PYTHON), str(SCRIPTS / name), service.url, service.token, FLASH]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_google_genai_asks(google: genai.Client, gemini: FakeGemini) -> None:
    answer = google.models.generate_content(model=FLASH, contents="Hello")

    assert answer.text == TEXT
    assert answer.usage_metadata
    assert answer.usage_metadata.total_token_count == TOTAL_TOKENS
    [seen] = gemini.seen
    assert seen.credentials == [seen.secret]
    assert seen.secret in SECRETS


def test_google_genai_streams(google: genai.Client, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    chunks = []
    for chunk in google.models.generate_content_stream(model=FLASH, contents="Hello"):
        chunks.append(chunk.text)
        if len(chunks) == 2:  # the third is held back until these have arrived
            assert gemini.is_holding
            gemini.hold.set()

    assert len(chunks) == 3
    assert "".join(filter(None, chunks)) == TEXT


def test_google_genai_chats_counts_embeds_and_lists(google: genai.Client) -> None:
    chat = google.chats.create(model=FLASH)
    answers = [chat.send_message("Hello").text, chat.send_message("And again").text]
    count = google.models.count_tokens(model=FLASH, contents="Hello")
    embedded = google.models.embed_content(model=EMBEDDING, contents="Hello")
    models = [model.name for model in google.models.list()]
    files = list(google.files.list())

    assert answers == [TEXT, TEXT]
    assert count.total_tokens == PROMPT_TOKENS
    assert embedded.embeddings
    assert embedded.embeddings[0].values
    assert f"models/{FLASH}" in models
    assert files == []


def test_google_genai_asks_and_streams_async(google: genai.Client) -> None:
    async def ask() -> tuple[str | None, str]:
        async with google.aio as client:
            answer = await client.models.generate_content(model=FLASH, contents="Hello")
            stream = await client.models.generate_content_stream(model=FLASH, contents="Hello")
            return answer.text, "".join([chunk.text or "" async for chunk in stream])

    assert asyncio.run(ask()) == (TEXT, TEXT)


def test_google_genai_uploads_files_and_asks_about_them(
    google: genai.Client, gemini: FakeGemini, tmp_path: Path
) -> None:
    paths = [tmp_path / "small.txt", tmp_path / "large.txt"]
    paths[0].write_bytes(b"small")
    paths[1].write_bytes(b"large" * 4_000_000)  # three chunks
    files = [google.files.upload(file=path) for path in paths]
    answers = [google.models.generate_content(model=FLASH, contents=["Hello", *files]).text for _ in range(5)]
    names = [str(file.name) for file in files]
    found = [google.files.get(name=name) for name in names]
    for name in names:
        google.files.delete(name=name)

    assert answers == [TEXT] * 5
    assert [file.size_bytes for file in found] == [5, 20_000_000]
    assert not gemini.resources.owners
    assert len(set(gemini.secrets_seen)) == 1


def test_google_genai_uploads_async(google: genai.Client, gemini: FakeGemini, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"content")

    async def upload_and_ask() -> str | None:
        async with google.aio as client:
            file = await client.files.upload(file=path)
            return (await client.models.generate_content(model=FLASH, contents=["Hello", file])).text

    assert asyncio.run(upload_and_ask()) == TEXT


def test_google_genai_keeps_to_the_project_of_its_cache_and_batch(google: genai.Client, gemini: FakeGemini) -> None:
    cache = google.caches.create(model=FLASH, config=types.CreateCachedContentConfig(ttl="600s", contents="Long"))
    config = types.GenerateContentConfig(cached_content=cache.name)
    batch = google.batches.create(model=FLASH, src=[types.InlinedRequest(contents="Hello")])

    assert [google.models.generate_content(model=FLASH, contents="Hi", config=config).text for _ in range(5)] == [
        TEXT
    ] * 5
    assert [google.batches.get(name=str(batch.name)).name for _ in range(5)] == [batch.name] * 5


def test_google_genai_shows_when_the_first_key_comes_back(google: genai.Client, gemini: FakeGemini) -> None:
    began = time.monotonic()
    with pytest.raises(errors.ServerError, match=rf"All keys for {EXHAUSTED} are rate-limited.*available in \d+ hours"):
        google.models.generate_content(model=EXHAUSTED, contents="Hello")
    with pytest.raises(errors.ServerError, match="are rate-limited"):
        list(google.models.generate_content_stream(model=EXHAUSTED, contents="Hello"))

    assert time.monotonic() - began < 10


def test_google_genai_shows_googles_own_errors_and_a_wrong_token(google: genai.Client, service: Service) -> None:
    with pytest.raises(errors.ClientError, match="404"):
        google.models.generate_content(model="gemini-unknown", contents="Hello")
    options = types.HttpOptions(base_url=service.url)
    with (
        genai.Client(api_key="wrong", http_options=options) as stranger,
        pytest.raises(errors.ClientError, match="Missing or wrong token"),
    ):
        stranger.models.generate_content(model=FLASH, contents="Hello")


def test_openai_chats(openai_client: openai.OpenAI, gemini: FakeGemini) -> None:
    answer = openai_client.chat.completions.create(model=FLASH, messages=[{"role": "user", "content": "Hello"}])

    assert answer.choices[0].message.content == TEXT
    assert answer.usage
    assert answer.usage.total_tokens == TOTAL_TOKENS
    [seen] = gemini.seen
    assert seen.path == "/v1beta/openai/chat/completions"
    assert seen.credentials == [seen.secret]


def test_openai_streams(openai_client: openai.OpenAI, gemini: FakeGemini) -> None:
    gemini.hold = Event()
    chunks = []
    with openai_client.chat.completions.create(
        model=FLASH, messages=[{"role": "user", "content": "Hello"}], stream=True
    ) as stream:
        for chunk in stream:
            chunks.append(chunk.choices[0].delta.content)
            if len(chunks) == 2:
                assert gemini.is_holding
                gemini.hold.set()

    assert len(chunks) == 3
    assert "".join(filter(None, chunks)) == TEXT


def test_openai_embeds_and_lists(openai_client: openai.OpenAI) -> None:
    embedded = openai_client.embeddings.create(model=EMBEDDING, input="Hello", encoding_format="float")
    models = [model.id for model in openai_client.models.list()]

    assert embedded.data[0].embedding
    assert any(FLASH in model for model in models)


def test_openai_asks_async(openai_client: openai.OpenAI) -> None:
    async def ask() -> str | None:
        async with openai.AsyncOpenAI(api_key=openai_client.api_key, base_url=openai_client.base_url) as client:
            answer = await client.chat.completions.create(model=FLASH, messages=[{"role": "user", "content": "Hello"}])
            return answer.choices[0].message.content

    assert asyncio.run(ask()) == TEXT


def test_openai_shows_when_the_first_key_comes_back_and_does_not_try_again(
    openai_client: openai.OpenAI, gemini: FakeGemini
) -> None:
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError, match=rf"All keys for {EXHAUSTED} are rate-limited") as caught:
        openai_client.chat.completions.create(model=EXHAUSTED, messages=[{"role": "user", "content": "Hello"}])

    assert time.monotonic() - began < 5
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert int(caught.value.response.headers["retry-after"]) > 120
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_openai_shows_googles_own_errors_and_a_wrong_token(openai_client: openai.OpenAI, service: Service) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError):
        openai_client.chat.completions.create(model="gemini-unknown", messages=messages)
    with (
        openai.OpenAI(api_key="wrong", base_url=openai_client.base_url) as stranger,
        pytest.raises(openai.AuthenticationError, match="Missing or wrong token"),
    ):
        stranger.chat.completions.create(model=FLASH, messages=messages)


def test_what_clients_did_is_counted_key_by_key(
    google: genai.Client, openai_client: openai.OpenAI, service: Service, gemini: FakeGemini
) -> None:
    before = service.answers()
    for number in range(6):
        google.models.generate_content(model=FLASH, contents=f"number {number}")
        openai_client.chat.completions.create(model=FLASH, messages=[{"role": "user", "content": "Hello"}])

    after = service.answers()
    assert {row: after[row] - before.get(row, 0) for row in after if after[row] > before.get(row, 0)} == gemini.accepted
    assert sum(gemini.accepted.values()) == 12


@in_other_venv
def test_google_genai_2_works(service: Service) -> None:
    found = script_output("google_genai.py", service)

    assert found["version"].startswith("2.")
    assert (found["text"], found["tokens"], found["count"]) == (TEXT, TOTAL_TOKENS, PROMPT_TOKENS)
    assert len(found["stream"]) == 3
    assert "".join(found["stream"]) == "".join(found["async"]) == TEXT
    assert f"models/{FLASH}" in found["models"]
    assert found["error"][:2] == [503, "UNAVAILABLE"]
    assert "are rate-limited" in found["error"][2]


@in_other_venv
def test_litellm_works_by_both_of_its_routes(service: Service) -> None:
    found = script_output("lite_llm.py", service)

    for route in ("gemini", "openai"):
        assert (found[route]["text"], found[route]["tokens"], found[route]["stream"]) == (TEXT, TOTAL_TOKENS, TEXT)
        assert f"All keys for {EXHAUSTED} are rate-limited" in found[route]["error"]


def test_google_genais_own_tests_pass(service: Service, gemini: FakeGemini, tmp_path: Path) -> None:
    found = importlib.util.find_spec("google.genai.tests.shared")
    if found is None or not found.submodule_search_locations:
        pytest.skip("This google-genai comes without its tests.")
    suite = Path(found.submodule_search_locations[0])
    chosen = ["generate_content", "generate_content_stream", "list", "count_tokens", "embed"]
    files = [suite / "models" / f"test_{name}.py" for name in chosen] + [suite / "chats", suite / "files/test_list.py"]
    # No settings, plugins or caches of ours.
    options = "-p suite_plugin -p no:django -p no:randomly -p no:xdist -p no:cacheprovider -c /dev/null -W ignore -q"
    command = [sys.executable, "-m", "pytest", *options.split(), "--rootdir", str(tmp_path)]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(SCRIPTS),
        "GEMINI_PROXY_URL": service.url,
        "GOOGLE_API_KEY": service.token,
        "GOOGLE_GENAI_RUN_GEMINI_ONLY_IN_API_MODE": "1",
        "GOOGLE_GENAI_REPLAYS_DIRECTORY": str(tmp_path),
    }
    done = run(
        [*command, "-o", "consider_namespace_packages=true", *map(str, files), "--mode=api"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip

    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert passed
    assert int(passed[1]) >= 11
    assert len(gemini.seen) >= 11
    assert {seen.secret for seen in gemini.seen} == set(SECRETS)
