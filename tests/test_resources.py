"""What a Google project owns is found again: files, caches, batches, stores, interactions, and uploads in progress."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from proxy.gemini.resources import (
    can_name_resources,
    expiries_of,
    name_of,
    resource_in_path,
    resources_in_answer,
    resources_in_body,
    strings_in,
)
from proxy.ledger import Ledger
from proxy.models import ApiKey, Resource
from tests import gemini_errors as errors
from tests.conftest import FLASH, GENERATE, TOKEN, Pool, ask, error_in, fake_secret, usage_of_today
from tests.fake_gemini import FakeGemini, Fault, Seen

HOME = "https://generativelanguage.googleapis.com"
FIVE = ("one", "two", "three", "four", "five")
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)

# Names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("files/abc-123", "files/abc-123"),
        (f"{HOME}/v1beta/files/abc", "files/abc"),
        (f"{HOME}/v1main/files/abc:download?alt=media", "files/abc"),
        ("https://proxy.example/v1beta/files/abc", "files/abc"),
        ("/v1beta/openai/batches/b1", "batches/b1"),
        ("/v1beta/openai/files/f1/content", "files/f1"),
        ("/upload/v1beta/fileSearchStores/s:uploadToFileSearchStore", "fileSearchStores/s"),
        ("/v1beta/fileSearchStores/s/documents/d", "fileSearchStores/s"),
        ("/v1beta/fileSearchStores/s/operations/o", "fileSearchStores/s"),
        ("/download/v1beta/files/abc:download?alt=media", "files/abc"),
        ("/v1beta/models/veo-3.0/operations/xyz", "models/veo-3.0/operations/xyz"),
        ("/v1beta/operations/o", "operations/o"),
        ("/v1beta/tunedModels/t:generateContent", "tunedModels/t"),
        ("/v1beta/interactions/v1_x/cancel", "interactions/v1_x"),
        ("/v1alpha/auth_tokens/t", "auth_tokens/t"),
        ("/v1beta/models/gemini-2.5-flash:generateContent", ""),
        ("/v1beta/files", ""),
        ("/v1beta/files/a%2Fb", ""),
        ("https://www.youtube.com/watch?v=files/abc", ""),
        ("gs://bucket/files/abc", "files/abc"),
        ("files/" + 400 * "x", ""),
        ("", ""),
    ],
)
def test_a_name_is_found_in_whatever_form(text: str, name: str) -> None:
    assert name_of(text) == name


def test_an_upload_in_progress_has_a_name() -> None:
    assert resource_in_path("/upload/v1beta/files?upload_id=A_b-1&upload_protocol=resumable") == "uploads/A_b-1"
    assert resource_in_path("/upload/v1beta/files") == ""
    assert resource_in_path("/v1beta/models/m:generateContent?upload_id=A") == ""


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a"}}', {"files/a"}),
        ('{"file_data": {"file_uri": "files/a"}, "x": {"fileUri":"files/b"}}', {"files/a", "files/b"}),
        (r'{"fileUri": "https:\/\/generativelanguage.googleapis.com\/v1beta\/files\/a"}', {"files/a"}),
        ('{"cachedContent": "cachedContents/c"}', {"cachedContents/c"}),
        ('{"extra_body": {"google": {"cached_content": "cachedContents/c"}}}', {"cachedContents/c"}),
        ('{"tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/s", "fileSearchStores/t"]}}]}',
         {"fileSearchStores/s", "fileSearchStores/t"}),
        ('{"batch": {"inputConfig": {"fileName": "files/a"}}}', {"files/a"}),
        ('{"input_file_id": "abc", "endpoint": "/v1/chat/completions"}', {"files/abc"}),
        ('{"input": [{"type": "image", "uri": "files/a"}], "previous_interaction_id": "v1_x"}',
         {"files/a", "interactions/v1_x"}),
        ('{"fileUri": "https://www.youtube.com/watch?v=abc"}', set()),
        (r'{"text": "Say \"fileUri\": \"files/a\" aloud"}', set()),
        ('{"text": "files/a"}', set()),
        ('{"fileUri": null, "cachedContent": ""}', set()),
        ("", set()),
    ],
)  # fmt: skip
def test_the_resources_in_a_body_are_found(body: str, names: set[str]) -> None:
    assert resources_in_body(body.encode()) == names


def test_a_resource_is_found_anywhere_in_a_long_body() -> None:
    pin = b'"fileUri": "files/abc"'
    for place in (0, 32_760, 32_768, 65_530, 99_000):
        body = b"x" * place + pin + b"x" * (100_000 - place)
        assert resources_in_body(body) == {"files/abc"}


@pytest.mark.parametrize(
    ("content", "path", "names"),
    [
        ({"file": {"name": "files/a", "uri": f"{HOME}/v1beta/files/a"}}, "/upload/v1beta/files", {"files/a"}),
        ({"name": "batches/b", "metadata": {"output": {"responsesFile": "files/r"}}}, "/v1beta/batches/b",
         {"batches/b", "files/r"}),
        ({"files": [{"name": "files/a"}, {"name": "files/b"}]}, "/v1beta/files", {"files/a", "files/b"}),
        ({"name": "models/veo/operations/o", "response": {"generatedSamples": [
            {"video": {"uri": f"{HOME}/v1beta/files/v:download?alt=media"}}]}}, "/v1beta/models/veo/operations/o",
         {"models/veo/operations/o", "files/v"}),
        ({"id": "v1_x", "status": "completed"}, "/v1beta/interactions", {"interactions/v1_x"}),
        ({"id": "b1", "output_file_id": "files/o"}, "/v1beta/openai/batches", {"batches/b1", "files/o"}),
        ({"name": "cachedContents/c", "model": "models/gemini-2.5-flash"}, "/v1beta/cachedContents",
         {"cachedContents/c"}),
        ({"models": [{"name": "models/gemini-2.5-flash"}]}, "/v1beta/models", set()),
        ([1, None, "files/a"], "/v1beta/files", set()),
    ],
)  # fmt: skip
def test_the_resources_in_an_answer_are_found(content: Any, path: str, names: set[str]) -> None:
    assert resources_in_answer(strings_in(json.dumps(content).encode()), path) == names


def test_the_resources_in_a_stream_are_found() -> None:
    stream = b'event: a\ndata: {"interaction": {"id": "v1_x"}}\n\ndata: {"interaction": {"id": "v1_'
    assert resources_in_answer(strings_in(stream), "/v1beta/interactions?alt=sse") == {"interactions/v1_x"}
    assert resources_in_answer(strings_in(b"\xff\xfe"), "/v1beta/interactions") == set()


@pytest.mark.parametrize(
    ("name", "content", "until"),
    [
        ("files/a", "{}", NOW + timedelta(hours=48)),
        ("files/a", '{"file": {"expirationTime": "2026-12-01T00:00:00.123456789Z"}}', None),
        ("cachedContents/c", '{"expireTime": "2026-11-30T13:00:00Z"}', NOW + timedelta(hours=1)),
        ("cachedContents/c", '{"expireTime": "2099-01-01T00:00:00Z"}', NOW + timedelta(days=60)),
        ("cachedContents/c", '{"expireTime": "soon"}', NOW + timedelta(days=60)),
        ("uploads/u", "", NOW + timedelta(days=7)),
        ("auth_tokens/t", "{}", NOW + timedelta(hours=24)),
        ("batches/b", "{}", NOW + timedelta(days=60)),
    ],
)
def test_a_resource_is_remembered_as_long_as_it_lasts(name: str, content: str, until: datetime | None) -> None:
    found = expiries_of([name], strings_in(content.encode()), NOW)[name]
    if until is None:
        assert abs(found - datetime(2026, 12, 1, tzinfo=UTC)) < timedelta(seconds=1)
    else:
        assert found == until


def test_only_answers_about_resources_are_read_ahead() -> None:
    assert can_name_resources("/v1beta/cachedContents", "")
    assert can_name_resources("/v1beta/models/m:batchGenerateContent", "batchGenerateContent")
    assert not can_name_resources("/v1beta/models/m:generateContent", "generateContent")
    assert not can_name_resources("/v1beta/tunedModels/t:generateContent", "generateContent")
    assert not can_name_resources("/v1beta/models", "")


# Whose key is used


@pytest.fixture
def keys(pool: Pool, gemini: FakeGemini) -> list[ApiKey]:
    """Five keys of five projects; "six" is another key of the project of "one"."""
    found = [key for name in FIVE for key in pool(name, project=name)]
    pool("six", project="one")
    for name in FIVE:
        gemini.know(fake_secret(name), name)
    gemini.know(fake_secret("six"), "one")
    return found


def post(client: Client, path: str, body: Any = None, **more: Any) -> Any:
    response = client.post(path, json.dumps(body or {}), content_type="application/json", **more)
    response.body = response.getvalue()  # type: ignore[attr-defined]
    return response


def json_of(response: Any) -> Any:
    return json.loads(response.body)


def first_event(response: Any) -> bytes:
    return bytes(response.body.split(b"data: ")[1].split(b"\n")[0])


def project_of(gemini: FakeGemini, seen: Seen) -> str:
    return gemini._project_of(seen)


def created(client: Client, kind: str) -> dict[str, Any]:
    """Have something created, and return a body that refers to it."""
    if kind == "cache":
        return {"cachedContent": json_of(post(client, "/v1beta/cachedContents"))["name"]}
    if kind == "store":
        store = json_of(post(client, "/v1beta/fileSearchStores"))["name"]
        return {"tools": [{"fileSearch": {"fileSearchStoreNames": [store]}}]}
    begun = post(client, "/v1beta/interactions", {"model": FLASH, "stream": kind == "stream"})
    interaction = json.loads(first_event(begun))["interaction"] if kind == "stream" else json_of(begun)
    return {"model": FLASH, "previous_interaction_id": interaction["id"]}


@pytest.mark.parametrize("kind", ["cache", "store", "interaction", "stream"])
def test_what_a_request_names_is_found_in_its_project(
    client: Client, gemini: FakeGemini, keys: list[ApiKey], kind: str
) -> None:
    body = created(client, kind)
    owner = project_of(gemini, gemini.seen[-1])
    path = GENERATE if kind in ("cache", "store") else "/v1beta/interactions"
    for _ in range(6):
        assert post(client, path, body).status_code == 200

    assert [project_of(gemini, seen) for seen in gemini.seen[1:]] == [owner] * 6


def test_a_batch_and_an_operation_are_found_by_their_path(
    client: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    for path in (f"/v1beta/models/{FLASH}:batchGenerateContent", "/v1beta/models/veo-3:predictLongRunning"):
        name = json_of(post(client, path, {"batch": {}}))["name"]
        assert [json.loads(client.get(f"/v1beta/{name}").getvalue())["name"] for _ in range(6)] == [name] * 6


def test_what_was_made_elsewhere_is_looked_up_once(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    gemini.resources.make("four", "files/{}")
    [name] = gemini.resources.owners
    body = {"contents": [{"parts": [{"fileData": {"fileUri": f"{HOME}/v1beta/{name}"}}]}]}

    assert [post(client, GENERATE, body).status_code for _ in range(3)] == [200] * 3
    lookups = [seen for seen in gemini.seen if seen.method == "GET"]
    assert 1 <= len(lookups) <= 5
    assert {seen.path for seen in lookups} == {f"/v1beta/{name}"}
    assert len({project_of(gemini, seen) for seen in lookups}) == len(lookups)


def test_a_project_that_owns_others_of_the_kind_is_asked_first(
    client: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    known, unknown = (gemini.resources.make("four", "files/{}")["name"] for _ in range(2))
    assert post(client, GENERATE, {"x": {"fileUri": known}, "contents": []}).status_code == 200
    before = len(gemini.seen)
    assert post(client, GENERATE, {"x": {"fileUri": unknown}, "contents": []}).status_code == 200

    assert [(seen.method, project_of(gemini, seen)) for seen in gemini.seen[before:]] == [
        ("GET", "four"),
        ("POST", "four"),
    ]


def test_it_is_remembered_that_nobody_has_it(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    body = {"contents": [{"parts": [{"fileData": {"fileUri": "files/gone"}}]}]}
    answers = [post(client, GENERATE, body) for _ in range(3)]

    assert {answer.status_code for answer in answers} == {403}
    assert "File gone" in error_in(answers[0])["message"]
    assert sum(seen.method == "GET" for seen in gemini.seen) == 5
    assert not ApiKey.objects.exclude(fault="").exists()


def test_a_key_gone_bad_does_not_hide_its_project(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    gemini.resources.make("one", "files/{}")
    [name] = gemini.resources.owners
    gemini.script(fake_secret("one"), errors.invalid_key())
    body = {"contents": [{"parts": [{"fileData": {"fileUri": name}}]}]}

    assert [post(client, GENERATE, body).status_code for _ in range(6)] == [200] * 6
    assert {project_of(gemini, seen) for seen in gemini.seen if seen.method == "POST"} == {"one"}


def test_another_key_of_the_project_takes_over(
    client: Client, service: Ledger, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    ApiKey.objects.filter(id__in=[key.pk for key in keys[1:]]).update(is_enabled=False)
    name = json_of(post(client, "/v1beta/cachedContents"))["name"]
    maker = gemini.seen[-1].secret
    ApiKey.objects.update(is_enabled=True)
    ApiKey.objects.filter(secret=maker).update(is_enabled=False)

    assert post(client, GENERATE, {"cachedContent": name}).status_code == 200
    assert project_of(gemini, gemini.seen[-1]) == "one"
    assert gemini.seen[-1].secret != maker


def test_the_error_names_the_resource_and_when_its_project_is_available(
    client: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    name = json_of(post(client, "/v1beta/cachedContents"))["name"]
    owner = project_of(gemini, gemini.seen[-1])
    gemini.exhaust(*[secret for secret, project in gemini._projects.items() if project == owner])
    answers = [post(client, GENERATE, {"cachedContent": name}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [503, 503]
    assert error_in(answers[1])["message"].startswith(f"{name} belongs to a Google project whose keys for {FLASH} are")
    assert answers[1].headers["Retry-After"]
    assert ask(client).status_code == 200  # others are served


def test_the_error_says_that_the_project_has_no_usable_key(
    client: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    name = json_of(post(client, "/v1beta/cachedContents"))["name"]
    owner = project_of(gemini, gemini.seen[-1])
    ApiKey.objects.filter(project__name=owner).update(is_enabled=False)

    answer = post(client, GENERATE, {"cachedContent": name})
    assert answer.status_code == 503
    assert error_in(answer)["message"].startswith(f"{name} belongs to a Google project without a usable key.")


def test_resources_of_several_projects_are_refused_by_name(
    client: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    names = [gemini.resources.make(project, "files/{}")["name"] for project in ("one", "two")]
    parts = [{"fileData": {"fileUri": name}} for name in names]
    answer = post(client, GENERATE, {"contents": [{"parts": parts}]})

    assert answer.status_code == 400
    assert all(name in error_in(answer)["message"] for name in names)


def test_what_a_client_creates_meets_in_one_project(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    names = [json_of(post(client, "/v1beta/cachedContents"))["name"] for _ in range(4)]
    assert len({gemini.resources.owners[name] for name in names}) == 1

    home = gemini.resources.owners[names[0]]
    ApiKey.objects.filter(project__name=home).update(is_enabled=False)
    elsewhere = json_of(post(client, "/v1beta/cachedContents"))["name"]
    assert gemini.resources.owners[elsewhere] != home  # a wish, not a must


def test_what_was_deleted_is_forgotten(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    name = json_of(post(client, "/v1beta/cachedContents"))["name"]
    assert Resource.objects.filter(name=name).exists()

    deleted = client.delete(f"/v1beta/{name}")
    assert (deleted.status_code, json.loads(deleted.getvalue())) == (200, {})
    assert not Resource.objects.filter(name=name).exists()


def test_a_creation_whose_answer_breaks_off_is_counted_and_reported(
    client: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    gemini.script("*", Fault.RESET_MIDDLE)
    answer = post(client, "/v1beta/cachedContents")

    assert answer.status_code == 502
    assert "in the middle of its answer" in error_in(answer)["message"]
    assert usage_of_today() == {"answers": 1, "errors": 1}


# Uploads


def start(client: Client, **more: Any) -> Any:
    headers = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
    response = client.post("/upload/v1beta/files", b"{}", content_type="application/json", headers=headers, **more)
    response.getvalue()
    return response


def send(client: Client, url: str, content: bytes, command: str = "upload, finalize") -> Any:
    path = "/" + url.split("://", 1)[1].partition("/")[2]
    headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": "0"}
    response = client.post(path, content, content_type="application/octet-stream", headers=headers)
    response.body = response.getvalue()  # type: ignore[attr-defined]
    return response


@pytest.fixture
def nobody() -> Client:
    """A client without a token."""
    return Client()


def test_an_upload_continues_here_without_a_token(
    client: Client, nobody: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    begun = start(client, HTTP_HOST="keys.example:5000", HTTP_X_FORWARDED_PROTO="https")
    url = begun.headers["X-Goog-Upload-URL"]
    assert url.startswith("https://keys.example:5000/upload/v1beta/files?upload_id=")
    assert begun.headers["X-Goog-Upload-Control-URL"] == url
    ended = send(nobody, url, b"content")

    assert ended.status_code == 200
    file = json_of(ended)["file"]
    assert file["uri"].startswith(HOME)
    assert len({project_of(gemini, seen) for seen in gemini.seen}) == 1
    body = {"contents": [{"parts": [{"fileData": {"fileUri": file["uri"]}}]}]}
    assert [post(client, GENERATE, body).status_code for _ in range(6)] == [200] * 6


def test_an_upload_into_a_store_continues_here_too(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    store = json_of(post(client, "/v1beta/fileSearchStores"))["name"]
    headers = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
    begun = client.post(f"/upload/v1beta/{store}:uploadToFileSearchStore", headers=headers)
    begun.getvalue()

    assert begun.headers["X-Goog-Upload-URL"].startswith("http://testserver/upload/v1beta/")
    assert len({project_of(gemini, seen) for seen in gemini.seen}) == 1


def test_nothing_else_is_open_without_a_token(
    client: Client, nobody: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    url = start(client).headers["X-Goog-Upload-URL"]
    path = "/" + url.split("://", 1)[1].partition("/")[2]
    seen = len(gemini.seen)

    assert send(nobody, url.replace("upload_id=", "upload_id=x"), b"content").status_code == 401
    assert nobody.get(path).status_code == 401
    assert nobody.post(path.replace("/upload/", "/")).status_code == 401
    assert nobody.post(GENERATE + "?" + path.partition("?")[2]).status_code == 401
    assert nobody.post("/upload/v1beta/files?upload_id=").status_code == 401
    assert start(nobody).status_code == 401
    assert len(gemini.seen) == seen


def test_a_large_chunk_is_neither_stored_nor_limited(
    client: Client, nobody: Client, gemini: FakeGemini, keys: list[ApiKey], settings: Any
) -> None:
    settings.MAX_BODY_MB = 1
    content = bytes(range(256)) * 16_384
    url = start(client).headers["X-Goog-Upload-URL"]

    assert send(nobody, url, content, "upload").status_code == 200
    assert json_of(send(nobody, url, content[:1_500_000]))["file"]["sizeBytes"] == str(len(content) + 1_500_000)


def test_a_refused_chunk_is_passed_on_and_not_repeated(
    client: Client, nobody: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    url = start(client).headers["X-Goog-Upload-URL"]
    gemini.script("*", errors.per_day_long(FLASH))
    answer = send(nobody, url, bytes(2_000_000))

    assert answer.status_code == 429
    assert len(gemini.seen) == 2


def test_uploads_and_tokens_never_reach_another_key(
    client: Client, nobody: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    urls = [start(client).headers["X-Goog-Upload-URL"] for _ in range(3)]
    ApiKey.objects.filter(secret=gemini.seen[0].secret).update(is_enabled=False)
    project = project_of(gemini, gemini.seen[0])
    answers = [send(nobody, url, b"x").status_code for url in urls]

    used = {project_of(gemini, seen) for seen in gemini.seen}
    assert used == {project}
    assert set(answers) == ({200} if project == "one" else {503})
    assert TOKEN not in str(gemini.seen)


# Lists


def names_on(page: dict[str, Any]) -> list[str]:
    return [file["name"] for file in page.get("files", [])]


def pages(client: Client, query: str = "") -> list[list[str]]:
    """Return the names on each page of the list of files."""
    found: list[list[str]] = []
    token = ""
    while not found or token:
        response = client.get(f"/v1beta/files?{query}" + (f"&pageToken={token}" if token else ""))
        page = json.loads(response.getvalue())
        assert response.status_code == 200, page
        found.append(names_on(page))
        token = page.get("nextPageToken", "")
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("counts", [{}, {"three": 1}, {"one": 3, "four": 4}, {"two": 12, "five": 1}])
def test_a_list_has_the_resources_of_all_projects(
    client: Client, gemini: FakeGemini, keys: list[ApiKey], counts: dict[str, int], size: int
) -> None:
    made = [gemini.resources.make(project, "files/{}")["name"] for project, n in counts.items() for _ in range(n)]
    found = pages(client, f"pageSize={size}")

    assert sorted(name for page in found for name in page) == sorted(made)
    assert all(found) or not made  # no page is empty
    assert Resource.objects.filter(name__in=made).count() == len(made)


def test_a_list_begins_with_the_owners_and_asks_few_others(client: Client, gemini: FakeGemini, pool: Pool) -> None:
    for number in range(60):
        pool(f"key-{number}", project=f"project-{number}")
    made = [gemini.resources.make(fake_secret(f"key-{number}"), "files/{}")["name"] for number in (3, 41, 59)]
    for number, name in zip((3, 41, 59), made, strict=True):
        key = ApiKey.objects.get(secret=fake_secret(f"key-{number}"))
        until = timezone.now() + timedelta(hours=1)
        Resource.objects.remember(key.pk, "", {name: until}, timezone.now())

    assert sorted(pages(client, "pageSize=100")[0]) == sorted(made)
    assert set(gemini.secrets_seen[:3]) == {fake_secret(f"key-{number}") for number in (3, 41, 59)}
    assert len(gemini.seen) == 3 + 20


def test_a_list_leaves_out_no_project_whose_key_is_bad(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    made = [gemini.resources.make(project, "files/{}")["name"] for project in ("one", "two")]
    gemini.script(fake_secret("one"), errors.invalid_key())

    assert sorted(pages(client)[0]) == sorted(made)


def test_a_list_goes_on_when_its_project_has_no_key_left(
    client: Client, gemini: FakeGemini, keys: list[ApiKey]
) -> None:
    for project in ("one", "two", "three"):
        for _ in range(3):
            gemini.resources.make(project, "files/{}")
    first = json.loads(client.get("/v1beta/files?pageSize=2").getvalue())
    owner = gemini.resources.owners[names_on(first)[0]]
    ApiKey.objects.filter(project__name=owner).update(is_enabled=False)
    rest = json.loads(client.get(f"/v1beta/files?pageSize=100&pageToken={first['nextPageToken']}").getvalue())

    assert len(names_on(rest)) == 6
    assert "nextPageToken" not in rest


@pytest.mark.parametrize("token", ["abc", "W10=", "bnVsbA==", "%00", "WzEsMiwzXQ=="])
def test_a_page_token_that_is_not_ours_is_refused(
    client: Client, gemini: FakeGemini, keys: list[ApiKey], token: str
) -> None:
    response = client.get(f"/v1beta/files?pageToken={token}")
    response.body = response.getvalue()  # type: ignore[attr-defined]

    assert response.status_code == 400
    assert "page token" in error_in(response)["message"]
    assert not gemini.seen


def test_an_error_of_a_list_is_passed_on(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    gemini.script("*", errors.bad_request("The page size is too large."))
    response = client.get("/v1beta/files?pageSize=5000")

    assert (response.status_code, b"too large" in response.getvalue()) == (400, True)


def test_an_openai_list_is_merged(client: Client, gemini: FakeGemini, keys: list[ApiKey]) -> None:
    for number in range(5):
        page = {"object": "list", "data": [{"id": f"batch_{number}"}], "has_more": False, "last_id": f"batch_{number}"}
        gemini.script(fake_secret(FIVE[number]), errors.Reply(200, page))
    gemini.script(fake_secret("six"), errors.Reply(200, {"object": "list", "data": [{"id": "batch_0"}]}))
    response = client.get("/v1beta/openai/batches")
    merged = json.loads(response.getvalue())

    assert sorted(one["id"] for one in merged["data"]) == [f"batch_{number}" for number in range(5)]
    assert (merged["object"], merged["last_id"]) == ("list", merged["data"][-1]["id"])
