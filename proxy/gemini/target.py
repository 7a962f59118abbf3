"""What a request asks of the Gemini API: paths, models, credentials. Pure functions, no Django, no HTTP.

Errors are read in `refusals.py`, token counts in `tokens.py`. Facts come from ai.google.dev/api and from recordings of
the official clients.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from mmap import mmap
from urllib.parse import parse_qsl, unquote_plus

from proxy.bodies.slices import slice_ends
from proxy.gemini.paths import GENERATING, BadPath, Oddity, find_route

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

    Paths as people's base URLs make them become those that are meant, see `gemini/paths.py`; OpenAI's lead to Gemini's
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


# What matters for depth in JSON: strings, whose second group is empty when they do not end, and runs of brackets. All
# between two of them is one match, at the speed of C; possessive, and up to the end, so that nothing is tried twice.
_JSON_TOKEN = re.compile(rb'[^"{}\[\]]*+(?:"((?:[^"\\]++|\\.)*+)("?)|([{\[]++)|([}\]]++)|\Z)', re.DOTALL)
_STRING, _OPENING = 2, 3  # the last group of each
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_SPACES = re.compile(rb"[ \t\r\n]*+")
_MODEL_KEYS = (b"model", b"agent")
_LONGEST_NAME = 200
# A body that is all brackets and quotes would take seconds. What a client sends has some 5 tokens a message.
_MOST_TOKENS = 4_000_000


class BadModelName(ValueError):
    """The model that a body names cannot be one; the message is for the client."""


def model_in_json(body: bytes | mmap) -> str:
    """Return the top-level "model" (or "agent") of a JSON object, without its "models/" prefix; "" if none.

    body: bytes or an mmap of them. Stops where it finds the name, so a body of 100 MB that begins with it is cheap, and
    gives up after millions of tokens. Lets other greenlets run meanwhile. Raises BadModelName.
    """
    start = _after_spaces(body, 3 if body[:3] == b"\xef\xbb\xbf" else 0)
    if body[start : start + 1] != b"{":
        return ""
    depth = 0
    for token in islice(_json_tokens(body, start), _MOST_TOKENS):
        if token.lastindex == _STRING:
            if depth == 1 and token[1] in _MODEL_KEYS and (name := _model_at(body, token.end())):
                return name
        elif token.lastindex == _OPENING:
            depth += len(token[3])
        else:
            depth -= len(token[4])
            if depth <= 0:
                break
    return ""


def _json_tokens(body: bytes | mmap, place: int) -> Iterator[re.Match[bytes]]:
    """Yield each run of brackets and each string, without those that are longer than a slice."""
    is_in_string = False
    for end in slice_ends(place, len(body)):
        if is_in_string:
            if (rest := _REST_OF_STRING.match(body, place, end)) is None or not rest[1]:
                place = rest.end() if rest else place
                continue
            place = rest.end()
        begin, place, is_in_string = place, end, False
        for token in _JSON_TOKEN.finditer(body, begin, end):
            if token.lastindex == _STRING and not token[2]:
                # It goes on in the next slice: look at it again from its beginning there, unless it is long.
                is_in_string = token.start(1) == begin + 1
                place = token.end() if is_in_string else token.start(1) - 1
                break
            if token.lastindex:
                yield token


def _model_at(body: bytes | mmap, after_key: int) -> str:
    """Return the name that follows a key which ends at `after_key`; "" for null, an empty name, and none at all."""
    colon = _after_spaces(body, after_key)
    if body[colon : colon + 1] != b":":
        return ""
    begin = _after_spaces(body, colon + 1)
    if begin >= len(body) or body[begin : begin + 4] == b"null":
        return ""
    if body[begin : begin + 1] != b'"':
        raise BadModelName("The model in the body is not a string.")
    most = begin + 12 * (_LONGEST_NAME + len("models/"))  # a character may be written as two escapes of 6 bytes
    found = _JSON_TOKEN.match(body, begin, most)
    is_whole = bool(found and found[2])
    if not is_whole and most >= len(body):
        return ""
    try:
        name = str(json.loads(found[0].decode())) if found and is_whole else "\0"
    except ValueError:
        name = "\0"
    name = name.removeprefix("models/")
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise BadModelName(f"The model in the body is not a name of at most {_LONGEST_NAME} printable characters.")
    return name


def _after_spaces(body: bytes | mmap, place: int) -> int:
    for end in slice_ends(place, len(body)):
        if (spaces := _SPACES.match(body, place, end)) and spaces.end() < end:
            return spaces.end()
        place = end
    return place
