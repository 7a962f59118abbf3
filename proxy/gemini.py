"""What a request asks of the Gemini API: paths, models, credentials. Pure functions, no Django, no HTTP.

Errors are read in `refusals.py`, token counts in `tokens.py`. Facts come from ai.google.dev/api and from recordings
of the official clients.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap
from urllib.parse import parse_qsl, unquote

Headers = list[tuple[str, str]]

# Every header in which clients show a credential; none of them travels on, since Google refuses two at once.
CREDENTIAL_HEADERS = frozenset(
    {"authorization", "x-goog-api-key", "x-api-key", "api-key", "proxy-authorization", "cookie"}
)
_CREDENTIAL_PARAMETERS = frozenset({"key", "access_token", "oauth_token"})

# First path segments that only OpenAI's API has, and those that both APIs have.
_OPENAI_ONLY = "audio|chat|completions|embeddings|fine_tuning|images|moderations|responses|videos"
_IN_BOTH = "batches|files|models"
_OPENAI_PATH = re.compile(rf"^/(?:v\d\w*/)?(?=(?:{_OPENAI_ONLY})(?:/|$))")
_OPENAI_BY_BEARER = re.compile(rf"^/(?:v1/)?(?=(?:{_IN_BOTH})(?:/|$))")
_OPENAI_HOME = "/v1beta/openai/"
_WITHOUT_VERSION = re.compile(r"^/(?=(?:models|openai)(?:/|$))")

_MODEL_IN_BODY = re.compile(r"/(?:interactions|cachedContents)(?:[/?]|$)")
_INTERACTION = re.compile(r"/interactions(?:\?|$)")
_MODEL_IN_PATH = re.compile(r"/(?:models|tunedModels)/([^/:?]+)(?::(\w+))?")
_ODD_CHARACTER = re.compile(r"[^!-~]|[\\#]")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\]")
_REPEATABLE_ACTIONS = frozenset(
    {"generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents", "generateAnswer"}
)


class BadPath(ValueError):
    """The path asked for could lead elsewhere than to the API; the message is for the client."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: `path` is raw (still percent-encoded), with its query, without any credential.

    model_name: from the path, "" when it names none (then the body may). action: "generateContent", "" if none.
    """

    path: str
    model_name: str
    action: str
    is_openai: bool

    @property
    def has_model_in_body(self) -> bool:
        """Tell whether the body names the model: OpenAI's endpoints, interactions, caches."""
        return not self.model_name and (self.is_openai or bool(_MODEL_IN_BODY.search(self.path)))

    @property
    def spends_quota(self) -> bool:
        """Tell whether a model is put to work; counting tokens, lists, files and the like have limits of their own."""
        if self.is_openai:
            return self.is_repeatable or "/images/" in self.path
        is_action = bool(self.action) and self.action != "countTokens"
        return is_action or bool(_INTERACTION.search(self.path))

    @property
    def is_repeatable(self) -> bool:
        """Tell whether asking twice does no harm but cost; false for uploads, batches, interactions and the like."""
        if self.is_openai:
            return self.path.partition("?")[0].endswith(("/chat/completions", "/embeddings"))
        return self.action in _REPEATABLE_ACTIONS


@lru_cache(maxsize=1024)  # clients ask for the same few paths again and again
def read_target(raw_uri: str, *, has_bearer: bool) -> Target:
    """Return where `raw_uri`, the request target as the client wrote it, leads.

    OpenAI's paths are mapped onto Gemini's compatible endpoint; `/v1/models`, `/v1/files` and `/v1/batches`, which
    both APIs have, are OpenAI's when the client shows a Bearer token. Raises BadPath for `..`, control characters,
    backslashes and the like, encoded or not.
    """
    path, _, query = _origin_form(raw_uri).partition("?")
    decoded = unquote(path)
    if _ODD_CHARACTER.search(path) or _CONTROL_CHARACTER.search(decoded) or {".", ".."} & set(decoded.split("/")):
        raise BadPath("This path has characters or segments (such as `..`) that no path of the Gemini API has.")
    path = "/" + path.lstrip("/")
    path = _OPENAI_PATH.sub(_OPENAI_HOME, path)
    if has_bearer and ":" not in decoded:  # an action after a colon is Gemini's
        path = _OPENAI_BY_BEARER.sub(_OPENAI_HOME, path)
    path = _WITHOUT_VERSION.sub("/v1beta/", path)
    is_openai = "/openai/" in path
    found = None if is_openai else _MODEL_IN_PATH.search(unquote(path))
    query = "&".join(part for part in query.split("&") if not _is_credential(part))
    if _ODD_CHARACTER.search(query):
        raise BadPath("The query has characters that must be percent-encoded.")
    return Target(
        path=f"{path}?{query}" if query else path,
        model_name=found[1] if found else "",
        action=(found[2] or "") if found else "",
        is_openai=is_openai,
    )


def _origin_form(raw_uri: str) -> str:
    """Return path and query of a request target, which a client may also send with scheme and host."""
    if raw_uri.startswith(("http://", "https://")):
        return "/" + raw_uri.split("://", 1)[1].partition("/")[2]
    return raw_uri


def _is_credential(parameter: str) -> bool:
    return unquote(parameter.partition("=")[0]).lower() in _CREDENTIAL_PARAMETERS


def credentials_in(headers: Headers, query: str) -> Iterator[str]:
    """Yield each credential that a client shows, in any of the forms clients use; empty ones are left out.

    headers: names in any case. Sources: google-genai (`x-goog-api-key`), OpenAI (`Authorization: Bearer`), curl
    (`?key=`), Live clients (`?access_token=`, `Authorization: Token`), Anthropic-style clients (`x-api-key`).
    """
    for name, value in headers:
        name = name.lower()
        if name == "authorization":
            scheme, _, value = value.partition(" ")
            value = value if scheme.lower() in ("bearer", "token") else ""
        elif name not in ("x-goog-api-key", "x-api-key", "api-key"):
            continue
        if value := value.strip():
            yield value
    if query:
        for name, value in parse_qsl(query):
            if name.lower() in _CREDENTIAL_PARAMETERS:
                yield value


def has_bearer(headers: Headers) -> bool:
    """Tell whether the client speaks as OpenAI's clients do: `Authorization: Bearer`, and no header of Google's."""
    names = {name.lower(): value for name, value in headers if value}
    return names.get("authorization", "").lower().startswith("bearer ") and "x-goog-api-key" not in names


def credential_for(secret: str, *, is_openai: bool) -> tuple[str, str]:
    """Return the one header that shows `secret` to Google: Bearer on the OpenAI endpoint, else x-goog-api-key."""
    return ("Authorization", f"Bearer {secret}") if is_openai else ("x-goog-api-key", secret)


# Tokens of JSON that matter for depth; a long base64 string is skipped as one match, at the speed of C. Possessive, so
# that a string without an end is not tried again from each quote in it.
_JSON_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.?)*+)(?:"\s*(:?)|\Z)|[{}\[\]]', re.DOTALL)
_JSON_STRING = re.compile(rb'\s*("(?:[^"\\]|\\.){1,200}")')
_MODEL_KEYS = (b"model", b"agent")


def model_in_json(body: bytes | mmap) -> str:
    """Return the top-level "model" (or "agent") of a JSON object, without its "models/" prefix; "" if none.

    body: bytes or an mmap of them. Stops where it finds the name, so a body of 100 MB that begins with it is cheap.
    """
    depth = 0
    for token in _JSON_TOKEN.finditer(body):
        opening = token[0][:1]
        if opening in b"{[":
            depth += 1
        elif opening in b"}]":
            depth -= 1
        elif depth == 1 and token[2] and token[1] in _MODEL_KEYS and (found := _JSON_STRING.match(body, token.end())):
            with suppress(ValueError):
                return str(json.loads(found[1])).removeprefix("models/")
    return ""
