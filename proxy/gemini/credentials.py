"""Credentials: those sent by clients, and the one sent to Google. Pure functions."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote_plus

Headers = list[tuple[str, str]]

# Every header in which clients send credentials. None is forwarded, since Google refuses two credentials at once.
CREDENTIAL_HEADERS = frozenset(
    {"authorization", "x-goog-api-key", "x-api-key", "api-key", "proxy-authorization", "cookie"}
)
_EPHEMERAL = re.compile(r"auth_tokens/[\w.~+=-]{1,200}", re.ASCII)
_CREDENTIAL_PARAMETERS = frozenset({"key", "access_token", "oauth_token"})
# Some programs append `?key=…` to URLs that already have a query.
_SECOND_QUESTION_MARK = re.compile(r"\?(?=(?:alt|key|access_token|oauth_token)=)", re.IGNORECASE)


def credentials_in(headers: Headers, query: str) -> Iterator[str]:
    """Yield each credential that a client sends, in any of the usual forms. Empty ones are skipped.

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


def ephemeral_token_in(headers: Headers, query: str) -> str:
    """Return the ephemeral token for the Live API that a client sends, as `auth_tokens/ID`; "" if it sends none."""
    found = (credential for credential in credentials_in(headers, query) if _EPHEMERAL.fullmatch(credential))
    return next(found, "")


def has_bearer(headers: Headers) -> bool:
    """Tell whether this is an OpenAI client: it sends `Authorization: Bearer`, and not Google's header."""
    names = {name.lower(): value for name, value in headers if value}
    return names.get("authorization", "").lower().startswith("bearer ") and "x-goog-api-key" not in names


def credential_for(secret: str, *, is_openai: bool) -> tuple[str, str]:
    """Return the header that sends `secret` to Google: Bearer on the OpenAI endpoint, otherwise x-goog-api-key."""
    return ("Authorization", f"Bearer {secret}") if is_openai else ("x-goog-api-key", secret)


def without_credentials(query: str) -> str:
    """Return a raw query without its credentials. Other parameters are unchanged."""
    query = _SECOND_QUESTION_MARK.sub("&", query)
    return "&".join(part for part in query.split("&") if not _is_credential(part))


def _is_credential(parameter: str) -> bool:
    return unquote_plus(parameter.partition("=")[0]).strip().lower() in _CREDENTIAL_PARAMETERS
