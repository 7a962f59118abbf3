"""The target of a request: its path at the Gemini API, and what follows from that. Pure functions.

The facts come from ai.google.dev/api and from recordings of the official clients.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from proxy.gemini.credentials import without_credentials
from proxy.gemini.paths import GENERATING, BadPath, Oddity, find_route
from proxy.gemini.resources import can_name_resources, is_list_of_resources, resource_in_path

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
    """Where a request goes."""

    # Raw (still percent-encoded), with the query, without any credential.
    path: str
    # In the path; "" if it names none, though the body may.
    model_name: str
    # "generateContent", or "" if none.
    action: str
    is_openai: bool
    # How the client's path differed from `path`.
    oddity: Oddity = Oddity.NONE
    # The resource of a Google project that the path leads to; "" if none.
    resource: str = ""
    # Answers can name such resources.
    names_resources: bool = False
    # A GET of it lists such resources.
    is_list: bool = False

    @property
    def continues_upload(self) -> bool:
        return self.resource.startswith("uploads/")

    @property
    def has_model_in_body(self) -> bool:
        """Tell whether the body names the model: OpenAI's endpoints, interactions, caches."""
        return not self.model_name and (self.is_openai or bool(_MODEL_IN_BODY.search(self.path)))

    @property
    def spends_quota(self) -> bool:
        """Tell whether a POST uses a model. Counting tokens, lists and files have separate limits."""
        if self.is_openai:
            return self.path.partition("?")[0] in _MODEL_FROM_OPENAI
        return self.action in GENERATING or bool(_INTERACTION.search(self.path))

    @property
    def is_repeatable(self) -> bool:
        """Tell whether a retry has no side effect except cost. Uploads, batches and interactions do have some."""
        if self.is_openai:
            return self.path.partition("?")[0].endswith(("/chat/completions", "/embeddings"))
        return self.action in _REPEATABLE_ACTIONS


@lru_cache(maxsize=1024)  # clients use the same few paths
def read_target(raw_uri: str, *, has_bearer: bool) -> Target:
    """Return the target for `raw_uri`, the request target as the client sent it.

    Corrects paths that result from a wrong base URL, see `gemini/paths.py`. OpenAI's paths lead to Gemini's compatible
    endpoint. Raises UnknownPath, and BadPath for `..`, control characters and the like.
    """
    path, _, query = _origin_form(raw_uri).partition("?")
    if _ODD_CHARACTER.search(path):
        raise BadPath("The path has characters that must be percent-encoded.")
    query = without_credentials(query)
    if _ODD_CHARACTER.search(query):
        raise BadPath("The query has characters that must be percent-encoded.")
    route = find_route(path, has_bearer=has_bearer)
    path = f"{route.path}?{query}" if query else route.path
    return Target(
        path,
        route.model_name,
        route.action,
        route.is_openai,
        route.oddity,
        resource_in_path(path),
        can_name_resources(path, route.action),
        is_list_of_resources(path),
    )


def _origin_form(raw_uri: str) -> str:
    """Return the path and query of a request target, which may include a scheme and host."""
    if raw_uri.startswith(("http://", "https://")):
        return "/" + raw_uri.split("://", 1)[1].partition("/")[2]
    return raw_uri
