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
from urllib.parse import parse_qsl, unquote_plus

from proxy.paths import GENERATING, BadPath, Oddity, find_route

Headers = list[tuple[str, str]]

# Every header in which clients show a credential; none of them travels on, since Google refuses two at once.
CREDENTIAL_HEADERS = frozenset(
    {"authorization", "x-goog-api-key", "x-api-key", "api-key", "proxy-authorization", "cookie"}
)
_CREDENTIAL_PARAMETERS = frozenset({"key", "access_token", "oauth_token"})

_MODEL_IN_BODY = re.compile(r"/(?:interactions|cachedContents)(?:[/?]|$)")
_INTERACTION = re.compile(r"/interactions(?:\?|$)")
_MODEL_FROM_OPENAI = frozenset(
    f"/v1beta/openai/{name}" for name in ("chat/completions", "embeddings", "images/generations", "images/edits")
)
# Programs append `?key=…` to URLs that have a query already.
_SECOND_QUESTION_MARK = re.compile(r"\?(?=(?:alt|key|access_token|oauth_token)=)", re.IGNORECASE)
_ODD_CHARACTER = re.compile(r"[^!-~]|[\\#]")
_REPEATABLE_ACTIONS = frozenset(
    {"generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents", "generateAnswer"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: `path` is raw (still percent-encoded), with its query, without any credential.

    model_name: from the path, "" when it names none (then the body may). action: "generateContent", "" if none.
    oddity: in what the client's path differed from it.
    """

    path: str
    model_name: str
    action: str
    is_openai: bool
    oddity: Oddity = Oddity.NONE

    @property
    def has_model_in_body(self) -> bool:
        """Tell whether the body names the model: OpenAI's endpoints, interactions, caches."""
        return not self.model_name and (self.is_openai or bool(_MODEL_IN_BODY.search(self.path)))

    @property
    def spends_quota(self) -> bool:
        """Tell whether a POST puts a model to work; all else has limits of its own: counting tokens, lists, files."""
        if self.is_openai:
            return self.path.partition("?")[0] in _MODEL_FROM_OPENAI
        return self.action in GENERATING or bool(_INTERACTION.search(self.path))

    @property
    def is_repeatable(self) -> bool:
        """Tell whether asking twice does no harm but cost; false for uploads, batches, interactions and the like."""
        if self.is_openai:
            return self.path.partition("?")[0].endswith(("/chat/completions", "/embeddings"))
        return self.action in _REPEATABLE_ACTIONS


@lru_cache(maxsize=1024)  # clients ask for the same few paths again and again
def read_target(raw_uri: str, *, has_bearer: bool) -> Target:
    """Return where `raw_uri`, the request target as the client wrote it, leads.

    Paths as people's base URLs make them become those that are meant, see `paths.py`; OpenAI's lead to Gemini's
    compatible endpoint. Raises UnknownPath, and BadPath for what no path has: `..`, control characters and the like.
    """
    path, _, query = _origin_form(raw_uri).partition("?")
    if _ODD_CHARACTER.search(path):
        raise BadPath("This path has characters that must be percent-encoded.")
    query = _SECOND_QUESTION_MARK.sub("&", query)
    query = "&".join(part for part in query.split("&") if not _is_credential(part))
    if _ODD_CHARACTER.search(query):
        raise BadPath("The query has characters that must be percent-encoded.")
    route = find_route(path, has_bearer=has_bearer)
    path = f"{route.path}?{query}" if query else route.path
    return Target(path, route.model_name, route.action, route.is_openai, route.oddity)


def _origin_form(raw_uri: str) -> str:
    """Return path and query of a request target, which a client may also send with scheme and host."""
    if raw_uri.startswith(("http://", "https://")):
        return "/" + raw_uri.split("://", 1)[1].partition("/")[2]
    return raw_uri


def _is_credential(parameter: str) -> bool:
    return unquote_plus(parameter.partition("=")[0]).strip().lower() in _CREDENTIAL_PARAMETERS


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
        for name, value in parse_qsl(_SECOND_QUESTION_MARK.sub("&", query)):
            if name.strip().lower() in _CREDENTIAL_PARAMETERS and (value := value.strip()):
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
