"""How paths are corrected: the base URLs in clients' settings, from documentation and issue trackers."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.gemini.paths import BadPath, Oddity, UnknownPath, find_route
from proxy.gemini.target import read_target

M = "gemini-2.5-flash"
GENERATE = f"/v1beta/models/{M}:generateContent"
CHAT = "/v1beta/openai/chat/completions"
LIVE = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"

# What arrives, and the path of the API that it means.
TO_GENERATE = [
    *(
        f"/v1beta{GENERATE}",
        f"/v1{GENERATE}",
        f"/v1beta/v1{GENERATE}",
        f"/v1beta/v1beta/v1beta/models/{M}:generateContent",
    ),
    *(f"/gemini{GENERATE}", f"/proxy/gemini{GENERATE}", f"/v1/gemini{GENERATE}", f"/hf{GENERATE}", f"/api{GENERATE}"),
    *(f"/v1/account/gateway/google-ai-studio{GENERATE}", f"/https://generativelanguage.googleapis.com{GENERATE}"),
    *(f"/models/{M}:generateContent", f"/gemini/models/{M}:generateContent", f"/vibeta/models/{M}:generateContent"),
    *(f"/v1beta/models/models/{M}:generateContent", f"/v1beta/models/models%2F{M}:generateContent"),
    *(f"/v1beta/models%2F{M}:generateContent", f"/v1beta%2fmodels%2f{M}%3agenerateContent"),
    *(f"/v1beta/models{GENERATE}", f"/v1beta/models/other:streamGenerateContent{GENERATE}", f"/models{GENERATE}"),
    *(f"/v1beta/models/{M}/models/{M}:generateContent", f"{CHAT}{GENERATE}", f"/v1beta/openai{GENERATE}"),
    *(f"/v1beta/openai/models/{M}:generateContent", f"/v1beta/openai/{M}:generateContent"),
    *(f"/v1beta/models/google/{M}:generateContent", f"/v1beta/models/google%2F{M}:generateContent"),
    *(f"/{GENERATE}", f"//{GENERATE}//", f"{GENERATE}/", f"/v1beta//models//{M}:generateContent"),
    *(f"/v1beta/models/{M}%3AgenerateContent", "/v1beta/models/gemini%2D2.5%2Dflash:generateContent"),
    *(
        f"{GENERATE}%20",
        f"{GENERATE}%0D%0A",
        f"/%20v1beta/models/{M}:generateContent",
        f"/v1beta%0A/models/{M}:generateContent",
    ),
    *(f"/v1beta/models/{M}%20:generateContent", f"/v1beta/models/%09{M}:%20generateContent", f"{GENERATE}%E2%80%8B"),
    *(f"/V1Beta/Models/{M}:generateContent", f"/v1beta/MODELS/{M}:generatecontent"),
    *(f"/v1beta/{M}:generateContent", f"/{M}:generateContent", f"/gemini/v1beta/{M}:generateContent"),
    *(
        f"/v1beta/models/{M}/generateContent",
        f"/v1beta/models/{M}/:generateContent",
        f"/v1beta/models/{M}::generateContent",
    ),
    *(f"{GENERATE}:generateContent", f"/v1beta/models/{M}:latest:generateContent"),
    f"/v1beta1/publishers/google/models/{M}:generateContent",
    f"/v1beta1/projects/p/locations/global/publishers/google/models/{M}:generateContent",
]
TO_CHAT = [
    *("/chat/completions", "/v1/chat/completions", "/v1beta/chat/completions", "/v1/openai/chat/completions"),
    *(
        "/openai/chat/completions",
        "/openai/v1/chat/completions",
        "/v1/v1/chat/completions",
        "/v1/v1/v1/chat/completions",
    ),
    *("/v1beta/openai/v1/chat/completions", "/v1beta/v1/chat/completions", "/v1/v1beta/openai/chat/completions"),
    *("/v1beta/openai/openai/chat/completions", "/v1beta/openai/v1beta/openai/chat/completions"),
    *(
        "/v1/chat/completions/chat/completions",
        "/v1/chat/completions/v1/chat/completions",
        "/v1/completions/chat/completions",
    ),
    *("/v1beta/models/chat/completions", f"{GENERATE}/chat/completions", f"/v1beta/models/{M}/v1/chat/completions"),
    *("/api/v1/chat/completions", "/gemini/v1/chat/completions", "/hf/v1/chat/completions", "/gemini/chat/completions"),
    *(f"/openai/deployments/{M}/chat/completions", "/v1/projects/p/locations/l/endpoints/openapi/chat/completions"),
    *("//v1//chat//completions/", "/v1/chat%2Fcompletions", "/V1/Chat/Completions", "/v1/chat/completions%0A"),
]
OTHERS = [
    (f"/v1/v1/models/{M}:generateContent", f"/v1/models/{M}:generateContent"),
    (f"/v1/projects/p/locations/l/publishers/google/models/{M}:x", f"/v1/models/{M}:x"),
    (f"/v1alpha/v1alpha/models/{M}:countTokens", f"/v1alpha/models/{M}:countTokens"),
    ("/v1beta/v1/models", "/v1/models"),
    ("/v1beta/models/", "/v1beta/models"),
    ("/v1beta/models/models", "/v1beta/models"),
    ("/v1beta/models/models/embedding-001", "/v1beta/models/embedding-001"),
    ("/v1beta/models/tunedModels/mine:generateContent", "/v1beta/tunedModels/mine:generateContent"),
    ("/gemini/v1beta/tunedModels/mine:streamGenerateContent", "/v1beta/tunedModels/mine:streamGenerateContent"),
    ("/v1beta/openai/models/models%2Fgemini-2.5-flash", "/v1beta/openai/models/gemini-2.5-flash"),
    ("/v1/v1/embeddings", "/v1beta/openai/embeddings"),
    ("/v1/images/generations/images/generations", "/v1beta/openai/images/generations"),
    ("/upload/v1beta/v1beta/files", "/upload/v1beta/files"),
    ("/v1beta/upload/v1beta/files", "/upload/v1beta/files"),
    ("/gemini/upload/v1/files", "/upload/v1/files"),
    ("/upload/files", "/upload/v1beta/files"),
    ("/download/v1beta/v1beta/files/a:download", "/download/v1beta/files/a:download"),
    ("/v1beta/v1beta/files/files/abc", "/v1beta/files/abc"),
    ("/v1beta/v1beta/cachedContents", "/v1beta/cachedContents"),
    ("/v1beta/v1beta/operations/op", "/v1beta/operations/op"),
    ("/v1beta/v1beta/models/veo-3/operations/op", "/v1beta/models/veo-3/operations/op"),
    ("/cachedcontents/abc", "/v1beta/cachedContents/abc"),
    ("/v1/v1beta/interactions", "/v1beta/interactions"),
    (f"/gemini{LIVE}", LIVE),
    (f"/{LIVE}", LIVE),
]
# From the documentation of the API, and recordings of its clients.
CORRECT = [
    *(f"/{version}/models/{M}:generateContent" for version in ("v1", "v1beta", "v1alpha", "v1main", "v2")),
    *(
        f"/v1beta/{resource}"
        for resource in (
            *("models", f"models/{M}", "models/v1/operations/op", "models/x%23y:generateContent", "tunedModels"),
            *(f"models/{M}:{action}" for action in ("predict", "predictLongRunning", "batchGenerateContent", "newOne")),
            *("tunedModels/t", "tunedModels/t/permissions/p", "tunedModels/t:transferOwnership", "operations/op"),
            *("tunedModels/t/operations/op", "dynamic/d:generateContent"),
            *("batches", "batches/b", "batches/b:cancel", "files", "files/v1", "files/chat", "files/openai"),
            *("files/a%20b%2Bc", "files/abc:download", "files:register", "generatedFiles/g", "cachedContents/c"),
            *("fileSearchStores", "fileSearchStores/s/documents/d", "fileSearchStores/s:importFile", "corpora/c"),
            *(
                "fileSearchStores/s/operations/o",
                "fileSearchStores/s/upload/operations/o",
                "corpora/c/documents/d/chunks",
            ),
            *("fileSearchStores/s/media/m", "ragStores/r", "interactions", "interactions/i", "interactions/i/cancel"),
            *("agents/a", "environments/e", "triggers/t/executions", "webhooks/w:rotateSigningSecret", "auth_tokens"),
            *("openai/chat/completions", "openai/embeddings", "openai/models", f"openai/models/{M}", "openai/files/f"),
            *(
                "openai/images/generations",
                "openai/batches/b",
                "openai/files",
                "openai/new/thing",
                "openai/videos/v/content",
            ),
        )
    ),
    *("/upload/v1beta/files", "/upload/v1/files", "/upload/v1beta/fileSearchStores/s:uploadToFileSearchStore"),
    *("/download/v1beta/files/abc:download", "/$discovery/rest"),
    LIVE,
]


@pytest.mark.parametrize("has_bearer", [False, True])
@pytest.mark.parametrize("path", TO_GENERATE)
def test_a_call_of_a_model_is_known_however_it_arrives(path: str, has_bearer: bool) -> None:
    route = find_route(path, has_bearer=has_bearer)

    assert route[:4] == (GENERATE, M, "generateContent", False)


@pytest.mark.parametrize("has_bearer", [False, True])
@pytest.mark.parametrize("path", TO_CHAT)
def test_a_chat_is_known_however_it_arrives(path: str, has_bearer: bool) -> None:
    assert find_route(path, has_bearer=has_bearer)[:4] == (CHAT, "", "", True)


@pytest.mark.parametrize(("path", "meant"), OTHERS)
def test_other_paths_are_known_however_they_arrive(path: str, meant: str) -> None:
    route = find_route(path, has_bearer=False)

    assert route[:4] == find_route(meant, has_bearer=False)[:4]
    assert route.path == meant


@pytest.mark.parametrize("path", CORRECT)
def test_a_correct_path_stays_as_it_is(path: str) -> None:
    route = find_route(path, has_bearer=False)

    assert (route.path, route.oddity) == (path, Oddity.NONE)
    assert route.is_openai == path.startswith("/v1beta/openai/")


@pytest.mark.parametrize(
    "path", ["/v1/v1/models", "/v1beta/v1/models", "/api/v1/models", "/v1/chat/completions/models"]
)
def test_a_list_that_both_apis_have_goes_by_the_credential_however_it_arrives(path: str) -> None:
    assert find_route(path, has_bearer=True).path == "/v1beta/openai/models"
    assert find_route(path, has_bearer=False).path == "/v1/models"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "/",
            "//",
            "/%20",
            "/v1",
            "/v1beta/",
            "/v1beta/v1beta",
            "/v1beta/openai",
            "/v1/openai/",
            "/upload/v1beta",
        ),
        *(
            "/v1/messages",
            "/api/tags",
            "/api/generate",
            "/v1internal:generateContent",
            "/v1beta/nothing/n",
            "/robots.txt",
        ),
        *(
            "/v1beta/gemini-2.5-flash",
            "/v1beta/gemini-2.5-flash:newOne",
            "/v1beta/x/operations/op",
            "/chat-completions",
        ),
    ],
)
@pytest.mark.parametrize("has_bearer", [False, True])
def test_a_path_that_cannot_be_of_the_api_is_unknown(path: str, has_bearer: bool) -> None:
    with pytest.raises(UnknownPath):
        find_route(path, has_bearer=has_bearer)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/v1beta/../x",
            "/v1beta/%2e%2e%2fx",
            "/v1beta/..%20/models",
            "/%20./models",
            "/v1beta/models/a%0ab:generateContent",
        ),
        *("/v1beta/models/%00", "/v1beta/models/a%5cb", "/gemini/../v1beta/models", "/nothing/a%7fb"),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_still_refused(path: str) -> None:
    with pytest.raises(BadPath) as refused:
        find_route(path, has_bearer=False)

    assert not isinstance(refused.value, UnknownPath)


@pytest.mark.parametrize(
    ("path", "oddity"),
    [
        (GENERATE, Oddity.NONE),
        ("/v1/chat/completions", Oddity.NONE),
        ("/openai/chat/completions", Oddity.NONE),
        ("/models", Oddity.NONE),
        (f"/{GENERATE}", Oddity.SPELLING),
        (f"{GENERATE}/", Oddity.SPELLING),
        (f"/v1beta/models%2F{M}:generateContent", Oddity.SPELLING),
        ("/V1/models", Oddity.SPELLING),
        (f"/v1beta{GENERATE}", Oddity.TWICE),
        ("/v1/v1/chat/completions", Oddity.TWICE),
        (f"/v1beta/models/models/{M}:generateContent", Oddity.TWICE),
        (f"/gemini{GENERATE}", Oddity.IN_FRONT),
        ("/api/v1/models", Oddity.IN_FRONT),
        (f"/v1beta/{M}:generateContent", Oddity.MODEL),
        (f"/v1beta/models/{M}/generateContent", Oddity.MODEL),
    ],
)
def test_a_corrected_path_says_what_was_wrong(path: str, oddity: Oddity) -> None:
    assert find_route(path, has_bearer=False).oddity == oddity


@pytest.mark.parametrize(
    ("path", "is_expected"),
    [
        (GENERATE, True),
        (f"/gemini/v1beta/models/{M}:predictLongRunning", True),
        ("/v1beta/tunedModels/t:streamGenerateContent?alt=sse", True),
        ("/v1/chat/completions?x=1", True),
        ("/v1/images/generations", True),
        ("/v1beta/interactions", True),
        (f"/v1beta/models/{M}:countTokens", False),
        (f"/v1beta/models/{M}:generateContents", False),
        (f"/v1beta/models/{M}:newOne", False),
        (f"/v1beta/models/{M}", False),
        (f"{GENERATE}/x", False),
        ("/v1beta/models:generateContent", False),
        ("/v1beta/models/models:generateContent", False),
        ("/v1beta/models/:generateContent", False),
        ("/v1/images/nothing", False),
        ("/v1/chat/nothing", False),
        ("/v1beta/interactions/i/cancel", False),
        ("/v1beta/openai/new/chat", False),
    ],
)
def test_only_calls_of_a_model_use_its_quota(path: str, is_expected: bool) -> None:
    assert read_target(path, has_bearer=False).spends_quota is is_expected


PIECES = st.one_of(
    st.sampled_from(
        [
            *("v1", "V1beta", "v1beta1", "openai", "upload", "download", "models", "Models", "tunedModels", "files"),
            *("operations", "chat", "completions", "embeddings", "ws", "google", M, f"{M}:generateContent", ":", ""),
            *(
                "generateContent",
                f"{M}%3AcountTokens",
                f"models%2F{M}",
                "%20",
                "%0A",
                " ",
                "a%20:b",
                "::predict",
                "%25",
            ),
            *("a:b:predict", "%2F", "%2525", "..", "%2e", "%c3", "files:register", "chat:x", "predict%20", "%E2%80%8B"),
        ]
    ),
    st.text(max_size=5),
)
PATHS = st.lists(PIECES, max_size=8).map(lambda pieces: "/" + "/".join(pieces))


@given(path=PATHS, has_bearer=st.booleans())
@settings(max_examples=500, deadline=None)
def test_a_correct_path_stays_unchanged(path: str, has_bearer: bool) -> None:
    try:
        route = find_route(path, has_bearer=has_bearer)
    except BadPath:
        return

    assert find_route(route.path, has_bearer=has_bearer) == route._replace(oddity=Oddity.NONE)
    assert "//" not in route.path
    assert route.path.startswith("/")


@pytest.mark.parametrize("piece", ["/models/v1/%20x%20", "%20", "/", ":", "/operations", "/chat/completions", "%2f%20"])
def test_a_long_path_is_read_in_one_pass(piece: str) -> None:
    """Ten times the length takes ten times the work. A hundred times, as with nested loops, would fail."""

    def seconds(count: int) -> float:
        path = f"/v1beta/models/{M}" + piece * count
        began = time.thread_time()
        find_route(path, has_bearer=True)
        return time.thread_time() - began

    assert min(seconds(20_000) for _ in range(3)) < 40 * max(min(seconds(2_000) for _ in range(3)), 0.0005)
