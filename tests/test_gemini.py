"""How requests are read for the Gemini API: every path that clients use, none that leads elsewhere, no credentials."""

import json
import mmap
import re
import tempfile
import time
import tracemalloc
from contextlib import suppress
from itertools import pairwise
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.bodies.slices import SLICE_BYTES
from proxy.gemini.credentials import Headers, credential_for, credentials_in, has_bearer
from proxy.gemini.model_in_body import BadModelName, model_in_json
from proxy.gemini.paths import BadPath, UnknownPath
from proxy.gemini.target import read_target
from proxy.gemini.tokens import estimate_input_tokens

MODEL = "gemini-2.5-flash"
VERSIONS = ["v1", "v1beta", "v1alpha", "v1main", "v2", "v3beta1"]
MODEL_ACTIONS = [
    "generateContent",
    "streamGenerateContent",
    "countTokens",
    "embedContent",
    "batchEmbedContents",
    "generateAnswer",
    "predict",
    "predictLongRunning",
    "batchGenerateContent",
    "asyncBatchEmbedContent",
]
REPEATABLE = MODEL_ACTIONS[:6]
# Whatever follows the version and names no model in its path.
RESOURCES = [
    "models",
    "models?pageSize=50&pageToken=abc",
    "batches",
    "batches/123",
    "batches/123:cancel",
    "operations/op-1",
    "files",
    "files/abc-123",
    "files/abc:download?alt=media",
    "files:register",
    "cachedContents",
    "cachedContents/abc",
    "fileSearchStores/s/documents/d",
    "fileSearchStores/s:importFile",
    "fileSearchStores/s/operations/op-1",
    "fileSearchStores/s/upload/operations/op-1",
    "corpora/c/documents",
    "interactions",
    "interactions/abc/cancel",
    "agents/a",
    "environments",
    "triggers/t/executions",
    "webhooks/w:rotateSigningSecret",
    "auth_tokens",
]
WITHOUT_VERSION_IN_FRONT = [
    "/upload/v1beta/files",
    "/upload/v1/files?upload_id=AbC-_1&upload_protocol=resumable",
    "/upload/v1beta/fileSearchStores/s:uploadToFileSearchStore",
    "/download/v1beta/files/abc:download?alt=media",
    "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
    "/$discovery/rest?version=v1beta",
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("action", MODEL_ACTIONS)
def test_a_model_and_an_action_are_read_from_the_path(version: str, action: str) -> None:
    path = f"/{version}/models/{MODEL}:{action}"

    target = read_target(path, has_bearer=False)

    assert (target.path, target.model_name, target.action) == (path, MODEL, action)
    assert not target.is_openai


@pytest.mark.parametrize("has_token_as_bearer", [False, True])
@pytest.mark.parametrize("action", MODEL_ACTIONS)
def test_a_model_with_an_action_is_gemini_s_also_with_a_bearer(action: str, has_token_as_bearer: bool) -> None:
    path = f"/v1/models/{MODEL}:{action}?alt=sse"

    target = read_target(path, has_bearer=has_token_as_bearer)

    assert (target.path, target.model_name, target.is_openai) == (path, MODEL, False)


def test_an_encoded_colon_before_the_action_means_the_same_with_a_bearer() -> None:
    target = read_target(f"/v1/models/{MODEL}%3AgenerateContent", has_bearer=True)

    assert not target.is_openai
    assert (target.model_name, target.action) == (MODEL, "generateContent")


@pytest.mark.parametrize("path", [f"/v1/{resource}" for resource in RESOURCES] + WITHOUT_VERSION_IN_FRONT)
def test_a_path_without_a_model_stays_as_it_is(path: str) -> None:
    target = read_target(path, has_bearer=False)

    assert (target.path, target.model_name, target.action, target.is_openai) == (path, "", "", False)


@pytest.mark.parametrize(
    ("path", "model_name", "action"),
    [
        (f"/v1beta/models/{MODEL}", MODEL, ""),
        (f"/v1beta/models%2F{MODEL}:generateContent", MODEL, "generateContent"),
        (f"/v1beta/models%2f{MODEL}%3AstreamGenerateContent?alt=sse", MODEL, "streamGenerateContent"),
        ("/v1beta/models/veo-3/operations/op-1", "veo-3", ""),
        ("/v1beta/tunedModels/mine-abc123:generateContent", "mine-abc123", "generateContent"),
        ("/v1beta/tunedModels/mine/permissions", "mine", ""),
        ("/v1beta/models/gemini%2D2.5%2Dflash:countTokens", MODEL, "countTokens"),
        (f"//v1beta/models/{MODEL}:generateContent", MODEL, "generateContent"),
        (f"/v1beta/models/{MODEL}:generateContent?x=/models/other:countTokens", MODEL, "generateContent"),
    ],
)
def test_model_names_are_found_however_they_are_written(path: str, model_name: str, action: str) -> None:
    target = read_target(path, has_bearer=False)

    assert (target.model_name, target.action) == (model_name, action)


@pytest.mark.parametrize("prefix", ["/v1", "/v1beta", "/v2", "", "/v1beta/openai", "/openai", "//v1"])
@pytest.mark.parametrize(
    "resource",
    [
        "chat/completions",
        "chat/completions?stream=1",
        "completions",
        "embeddings",
        "images/generations",
        "images/edits",
        "audio/speech",
        "videos",
        "responses",
        "moderations",
        "fine_tuning/jobs",
    ],
)
@pytest.mark.parametrize("has_token_as_bearer", [False, True])
def test_openai_s_own_paths_go_to_gemini_s_compatible_endpoint(
    prefix: str, resource: str, has_token_as_bearer: bool
) -> None:
    target = read_target(f"{prefix}/{resource}", has_bearer=has_token_as_bearer)

    assert target.path == f"/v1beta/openai/{resource}"
    assert target.is_openai
    assert target.has_model_in_body


@pytest.mark.parametrize("resource", ["models", f"models/{MODEL}", "models?limit=3", "files", "files/f-1", "batches"])
def test_paths_of_both_apis_are_told_apart_by_the_credential(resource: str) -> None:
    as_openai = read_target(f"/v1/{resource}", has_bearer=True)
    as_gemini = read_target(f"/v1/{resource}", has_bearer=False)

    assert (as_openai.path, as_openai.is_openai) == (f"/v1beta/openai/{resource}", True)
    assert (as_gemini.path, as_gemini.is_openai) == (f"/v1/{resource}", False)


def test_a_list_of_models_without_a_version_goes_by_the_credential_too() -> None:
    """An OpenAI client whose base URL has no /v1 gets its chats answered, so its list of models must fit as well."""
    as_openai = read_target("/models", has_bearer=True)
    as_gemini = read_target("/models", has_bearer=False)

    assert as_openai.path == "/v1beta/openai/models"
    assert as_gemini.path == "/v1beta/models"


def test_a_model_without_a_version_gets_one() -> None:
    """LiteLLM sends this if its `api_base` has no version."""
    target = read_target(f"/models/{MODEL}:generateContent", has_bearer=False)

    assert (target.path, target.model_name) == (f"/v1beta/models/{MODEL}:generateContent", MODEL)


@pytest.mark.parametrize("path", ["/v1beta/files/chat", "/v1/files/embeddings", "/v1beta/models/chat:embedContent"])
def test_a_path_that_only_resembles_openai_s_is_left_alone(path: str) -> None:
    target = read_target(path, has_bearer=False)

    assert (target.path, target.is_openai) == (path, False)


@pytest.mark.parametrize(
    ("path", "is_expected"),
    [
        ("/v1/chat/completions", True),
        ("/v1beta/interactions", True),
        ("/v1beta/cachedContents", True),
        (f"/v1beta/models/{MODEL}:generateContent", False),
        ("/v1beta/files", False),
        ("/v1beta/models", False),
    ],
)
def test_the_body_names_the_model_where_the_path_does_not(path: str, is_expected: bool) -> None:
    assert read_target(path, has_bearer=False).has_model_in_body is is_expected


@pytest.mark.parametrize(
    ("path", "is_expected"),
    [
        *((f"/v1/models/{MODEL}:{action}", action in REPEATABLE) for action in MODEL_ACTIONS),
        ("/v1/chat/completions?x=1", True),
        ("/v1/embeddings", True),
        ("/v1/images/generations", False),
        ("/v1/batches", False),
        ("/v1beta/interactions", False),
        ("/v1beta/files", False),
        ("/upload/v1beta/files?upload_id=1", False),
        ("/v1beta/cachedContents", False),
        ("/v1beta/auth_tokens", False),
    ],
)
def test_only_what_does_no_harm_twice_is_repeatable(path: str, is_expected: bool) -> None:
    assert read_target(path, has_bearer=False).is_repeatable is is_expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/../admin",
        "/v1beta/models/..",
        "/..",
        "/.",
        "/v1beta/./models",
        "/v1beta/%2e%2e/admin",
        "/v1beta/%2E./admin",
        "/v1beta/models%2F..%2Fx",
        "/v1beta/models\\..\\x",
        "/v1beta/%5c%5cevil",
        "/v1beta/models/a%0d%0aHost:%20evil",
        "/v1beta/models/a\r\nHost: evil",
        "/v1beta/models/%00",
        "/v1beta/models/%7f",
        "/v1beta/models/a b",
        "/v1beta/models/ä",
        "/v1beta/models#fragment",
        "http://evil.example/v1beta/../x",
        "/v1beta/models?a=b c",
        "/v1beta/models?a=b\r\nX: y",
        "/v1beta/models?a=b#c",
        "/v1beta/models?a=\\",
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(BadPath) as refused:
        read_target(path, has_bearer=False)

    assert "evil" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("http://evil.example/v1beta/models?x=1", "/v1beta/models?x=1"),
        ("https://evil.example:8443/v1beta/models", "/v1beta/models"),
        ("http://user:pass@evil.example/v1/chat/completions", "/v1beta/openai/chat/completions"),
        ("https:///v1beta/models", "/v1beta/models"),
        ("//evil.example/v1beta/models", "/v1beta/models"),
        ("http:////evil.example/models", "/v1beta/models"),
        ("ftp://evil.example/v1/models", "/v1/models"),
        ("@evil.example/v1/models", "/v1/models"),
    ],
)
def test_a_host_in_the_request_target_leads_nowhere(uri: str, path: str) -> None:
    target = read_target(uri, has_bearer=False)

    assert target.path == path


@pytest.mark.parametrize(
    "uri", ["http://evil.example", "////evil.example", "evil.example:443", "@evil.example", "*", ""]
)
def test_a_host_alone_is_no_path(uri: str) -> None:
    with pytest.raises(UnknownPath):
        read_target(uri, has_bearer=False)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("key=SECRET", ""),
        ("alt=sse&key=SECRET", "alt=sse"),
        ("key=SECRET&alt=sse", "alt=sse"),
        ("b=2&key=SECRET&a=1", "b=2&a=1"),
        ("access_token=SECRET&a=1&KEY=SECRET", "a=1"),
        ("%6bey=SECRET&a=%2f%2F+%20", "a=%2f%2F+%20"),
        ("alt=sse?key=SECRET", "alt=sse"),
        ("key=SECRET?alt=sse", "alt=sse"),
        ("+key%20=SECRET&%0Akey=SECRET&a=1", "a=1"),
        ("key", ""),
        ("key=", ""),
        ("a&key=SECRET&c=&a=2", "a&c=&a=2"),
        ("monkey=1&keys=2&pageToken=key=3", "monkey=1&keys=2&pageToken=key=3"),
        ("a=b?c&updateMask=x/y:z", "a=b?c&updateMask=x/y:z"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("path", ["/v1beta/models", "/upload/v1/files"])
def test_credentials_are_removed_from_the_query_and_the_rest_is_unchanged(path: str, query: str, left: str) -> None:
    target = read_target(f"{path}?{query}", has_bearer=False)

    assert target.path == (f"{path}?{left}" if left else path)


PIECES = [
    *(
        "/",
        "//",
        "?",
        "&",
        "=",
        "#",
        "\\",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5C",
        "%0d%0a",
        "\r\n",
        "%00",
        "%",
        "%25",
    ),
    *("http://", "HTTPS://", "evil.example", "@", ":", ";", "v1", "v1beta", "models", "tunedModels", "openai", "chat"),
    *(
        "completions",
        "embeddings",
        "files",
        "key",
        "%6Bey",
        "KEY",
        "access_token",
        "token",
        "generateContent",
        "$",
        " ",
    ),
]
URIS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/v1beta/models/" + "".join(pieces)),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=8).map("".join),
)


@given(uri=URIS, has_token_as_bearer=st.booleans())
@example(uri="/v1//evil.example/chat", has_token_as_bearer=True)
@example(uri="/\t/evil.example", has_token_as_bearer=False)
@settings(max_examples=60, deadline=None)
def test_no_request_target_leads_elsewhere_than_to_the_api(uri: str, has_token_as_bearer: bool) -> None:
    try:
        target = read_target(uri, has_bearer=has_token_as_bearer)
    except BadPath:
        return

    assert re.fullmatch(r"/(?!/)[!-~]*", target.path)
    assert not set("\\#") & set(target.path)
    split = urlsplit(f"https://api.example{target.path}")
    assert (split.scheme, split.netloc) == ("https", "api.example")
    assert not {".", ".."} & set(unquote(split.path).split("/"))
    shown = {name.lower() for name, _ in parse_qsl(split.query, keep_blank_values=True)}
    assert not {"key", "access_token"} & shown
    assert not re.search(r"[\x00-\x1f\x7f/\\]", target.model_name)


@given(
    parameters=st.lists(
        st.tuples(
            st.sampled_from(["a", "alt", "keys", "monkey", "x%20y", "pageToken"]),
            st.text("abcXYZ019-._~%+/:?=@!$'()*,;", max_size=12),
        ),
        max_size=6,
    ),
    place=st.integers(0, 6),
)
@settings(max_examples=80, deadline=None)
def test_a_credential_leaves_the_query_wherever_it_stands(parameters: list[tuple[str, str]], place: int) -> None:
    parts = [f"{name}={value}" for name, value in parameters]
    with_key = [*parts[:place], "key=SECRET", *parts[place:]]

    target = read_target("/v1beta/models?" + "&".join(with_key), has_bearer=False)

    assert target.path == "/v1beta/models" + ("?" + "&".join(parts) if parts else "")


@pytest.mark.parametrize(
    ("headers", "query", "shown"),
    [
        ([("x-goog-api-key", "T")], "", ["T"]),
        ([("X-Goog-Api-Key", " T ")], "", ["T"]),
        ([("Authorization", "Bearer T")], "", ["T"]),
        ([("authorization", "bearer  T")], "", ["T"]),
        ([("Authorization", "Token auth_tokens/T")], "", ["auth_tokens/T"]),
        ([("x-api-key", "T")], "", ["T"]),
        ([("api-key", "T")], "", ["T"]),
        ([], "key=T", ["T"]),
        ([], "alt=sse&access_token=T&x=1", ["T"]),
        ([], "%6bey=T%2B1", ["T+1"]),
        ([], "key=%20T%0A", ["T"]),
        ([], "key=+T+", ["T"]),
        ([], "alt=sse?key=T", ["T"]),
        ([], "key=T?alt=sse", ["T"]),
        ([], "alt=sse&access_token=%0D%0AT%09", ["T"]),
        ([], "key%20=T&+KEY=U", ["T", "U"]),
        ([("Authorization", "Bearer  T\t")], "", ["T"]),
        ([], "key=%20%0A", []),
        ([("x-goog-api-key", "")], "", []),
        ([("Authorization", "Bearer ")], "", []),
        ([("Authorization", "Basic T")], "", []),
        ([("Authorization", "T")], "", []),
        ([("Cookie", "T")], "", []),
        ([("x-goog-api-key", "one"), ("Authorization", "Bearer two")], "key=three", ["one", "two", "three"]),
        ([("x-goog-api-key", ""), ("Authorization", "Bearer T")], "key=", ["T"]),
    ],
)
def test_the_token_is_found_in_every_form_that_clients_use(headers: Headers, query: str, shown: list[str]) -> None:
    assert list(credentials_in(headers, query)) == shown


@pytest.mark.parametrize(
    ("headers", "is_expected"),
    [
        ([("Authorization", "Bearer T")], True),
        ([("AUTHORIZATION", "bearer T")], True),
        ([("Authorization", "Bearer T"), ("x-goog-api-key", "")], True),
        ([("Authorization", "Bearer T"), ("X-Goog-Api-Key", "T")], False),
        ([("Authorization", "Token T")], False),
        ([("x-goog-api-key", "T")], False),
        ([], False),
    ],
)
def test_a_client_with_only_a_bearer_token_uses_the_openai_api(headers: Headers, is_expected: bool) -> None:
    assert has_bearer(headers) is is_expected


def test_google_is_shown_one_header_that_fits_the_endpoint() -> None:
    assert credential_for("S", is_openai=True) == ("Authorization", "Bearer S")
    assert credential_for("S", is_openai=False) == ("x-goog-api-key", "S")


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._@:", min_size=1, max_size=60)
DOCUMENTS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(['"model":"x"', '\\"', "{["])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(["model", "agent", "a"]), st.text(max_size=4)), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(
    before=st.dictionaries(st.text(max_size=6), DOCUMENTS, max_size=4),
    after=st.dictionaries(st.text(max_size=6), DOCUMENTS, max_size=2),
    name=NAMES,
    prefix=st.sampled_from(["", "models/"]),
    indent=st.sampled_from([None, 2]),
)
@settings(max_examples=80, deadline=None)
def test_the_model_of_a_body_is_the_one_at_its_top(
    before: dict[str, object], after: dict[str, object], name: str, prefix: str, indent: int | None
) -> None:
    for decoys in (before, after):
        decoys.pop("model", None)
        decoys.pop("agent", None)
    document = {**before, "model": prefix + name, **after}

    assert model_in_json(json.dumps(document, indent=indent).encode()) == name
    assert model_in_json(json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")) == name


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"model":"gemini-2.5-flash"}', MODEL),
        (b' \n{ "model" :\t"models/gemini-2.5-flash" }', MODEL),
        (b'{"agent":"deep-research"}', "deep-research"),
        (b'{"model":null,"agent":"deep-research"}', "deep-research"),
        (b'{"a":{"model":"decoy"},"b":[{"model":"decoy"}],"model":"real"}', "real"),
        (b'{"messages":[{"content":"\\"model\\":\\"decoy\\""}],"model":"real"}', "real"),
        (b'{"a":"ends with a backslash \\\\","model":"real"}', "real"),
        (b'{"a":"}{][","model":"real"}', "real"),
        (b'{"a":"model","model":"real"}', "real"),
        (b'{"model":"models\\/gemini-2.5-flash"}', MODEL),
        (b'{"a":{"model":"decoy"}}', ""),
        (b'[{"model":"decoy"}]', ""),
        (b'"model"', ""),
        (b'{"model":""}', ""),
        (b'\xef\xbb\xbf{"model":"real"}', "real"),
        (b'{"a":1}{"model":"decoy"}', ""),
        (b'--boundary\r\n\r\n{"model":"decoy"}', ""),
        (b'{"model":"unfinished', ""),
        (b"", ""),
        (b"\x00\xff not json", ""),
    ],
)
def test_only_a_top_level_model_counts(body: bytes, name: str) -> None:
    """The escaped slash is how PHP writes JSON."""
    assert model_in_json(body) == name


@given(st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_no_body_upsets_the_search_for_a_model(body: bytes) -> None:
    with suppress(BadModelName):
        assert isinstance(model_in_json(body), str)


@given(
    filler=st.sampled_from([b" ", b"1,", b'\\"', b"\\\\", b"x"]),
    size=st.integers(SLICE_BYTES - 40, SLICE_BYTES + 10),
    slices=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_the_cuts_of_a_long_body_change_nothing(filler: bytes, size: int, slices: int) -> None:
    """The name, its key and the spaces around them lie across the end of a slice."""
    long = filler * ((size + slices * SLICE_BYTES) // len(filler))
    in_string = filler in (b'\\"', b"\\\\", b"x")
    before = b'{"a":"' + long + b'"' if in_string else b'{"a":[' + long + b"0]"

    assert model_in_json(before + b',"model":"real"}') == "real"
    assert model_in_json(before + b',"model"' + b" " * 40 + b":\n" + b'"real"}') == "real"


@pytest.mark.parametrize(
    "piece",
    [
        b"[",
        b"[]",
        b'{"',
        b"\\",
        b'"',
        b'"a":"b",',
        b" ",
        b'"data"',
        b'"data"   ',
        b'"url":"",',
        b'"model"',
        b'"model":null,',
    ],
)
@pytest.mark.parametrize("start", [b"", b'{"a":', b'{"a":"', b'{"model"'])
def test_others_have_their_turn_while_a_hostile_body_is_looked_through(
    monkeypatch: pytest.MonkeyPatch, start: bytes, piece: bytes
) -> None:
    """Measured in the processor time of this thread, which a busy machine does not change."""
    turns = [time.thread_time()]
    monkeypatch.setattr("time.sleep", lambda _: turns.append(time.thread_time()))
    body = start + piece * (1_000_000 // len(piece))

    with suppress(BadModelName):
        model_in_json(body)
    estimate_input_tokens(body)

    turns.append(time.thread_time())
    assert max(after - before for before, after in pairwise(turns)) < 0.1


def test_the_model_behind_a_huge_base64_string_is_found_in_a_mapped_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b'{"contents":[{"inlineData":{"data":"' + b"QUJD" * 2_000_000 + b'"}}],"model":"models/real"}')
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            assert model_in_json(body) == "real"


@pytest.mark.timeout(5)
@pytest.mark.parametrize("end", [b"", b"\\", b'"', b'"}'])
def test_an_endless_string_of_quotes_does_not_block_others(end: bytes) -> None:
    """All requests of a worker wait while this runs: minutes for a megabyte would be an outage."""
    body = b'{"contents":"' + b'\\"' * 100_000 + end

    assert model_in_json(body) == ""


def test_a_long_text_with_many_line_breaks_takes_no_memory_of_its_own() -> None:
    body = b'{"contents":"' + b"\\n" * 300_000 + b'","model":"real"}'
    tracemalloc.start()

    name = model_in_json(body)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert name == "real"
    assert peak < 4 * len(body)
