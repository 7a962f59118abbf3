"""What a request asks of the Gemini API: paths, models, credentials. Pure functions, no Django, no HTTP.

Errors are read in `refusals.py`, token counts in `tokens.py`. Facts come from ai.google.dev/api and from recordings of
the official clients.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from proxy.gemini.credentials import without_credentials
from proxy.gemini.paths import GENERATING, BadPath, Oddity, find_route

_MODEL_IN_BODY = re.compile(r"/(?:interactions|cachedContents)(?:[/?]|$)")
_INTERACTION = re.compile(r"/interactions(?:\?|$)")
_MODEL_FROM_OPENAI = frozenset(
    f"/v1beta/openai/{name}" for name in ("chat/completions", "embeddings", "images/generations", "images/edits")
)
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
    query = without_credentials(query)
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
