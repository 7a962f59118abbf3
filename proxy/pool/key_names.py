"""Finds the name of a key in the text around it, and tells names from words such as "API key". Pure functions."""

import json
import operator
import re
from typing import NamedTuple

LONGEST_NAME = 100
# Words that only say that this is a Gemini key, not which one.
_GENERIC = re.compile(
    "gemini|google|goog|generative|generativelanguage|ai|genai|aistudio|studio|api|apikeys?|keys?|secrets?|tokens?|"
    "credentials?|auth|authorization|access|bearer|header|x|url|values?|string|export|set|setx|env|declare|const|let|var|"
    "密钥|密鑰|金鑰|秘钥|键|鍵"
)
_CALLS_IT_A_NAME = re.compile("name|label|title|alias|nickname|名称|名稱|名字")
_IN_PLACE_OF_A_KEY = re.compile(rf"{_GENERIC.pattern}|your|my|the|an?|here|insert|paste|put|enter|replace|with|me|this")
_AROUND = " \t\n\"'`*_-–—•·,;:=$>"
_BULLET = re.compile(r"^(?:[-*+•·>]|\d{1,5}[.)])\s+")
_SHELL = re.compile(r"^(?:export|set|setx|env|declare|const|let|var)\s+", re.IGNORECASE)
# What comes before the word in front of a key: a quote, part of a URL, the bracket of a call.
_BEGINNING = re.compile(r"[\"?&/<>]|(?<=\w)\(|\s['`$]")
_NO_NAME = re.compile(r"AIza|AQ\.|://|%[0-9A-F]{2}|^(?:true|false|null|none)$", re.IGNORECASE)
# Long and with a digit, like a secret: it may be a secret for something else.
_MAY_BE_SECRET = re.compile(r"(?=\D*\d)[\w.+/-]{20,}", re.ASCII)


class Label(NamedTuple):
    """The words next to a key."""

    words: str
    # Connected to the key by `:` or `=`.
    is_marked: bool


def label_before(text: str) -> Label:
    """Return the words at the end of `text`, which is in front of a key: `export ALICE="` gives ALICE."""
    pieces = [stripped for piece in re.split("[:=]", text) if (stripped := _stripped(piece))]
    words = _BEGINNING.split(pieces[-1])[-1] if pieces else ""
    return Label(_bare(words), text.rstrip(" \t\"'`([").endswith((":", "=", ">")))


def label_after(text: str) -> Label:
    """Return the words at the start of `text`, which follows a key: `": "alice"` gives alice."""
    pieces = [stripped for piece in re.split('[":=]', text, maxsplit=3) if (stripped := _stripped(piece))]
    return Label(_bare(pieces[0]) if pieces else "", bool(re.match(r"[\s\"'`]*[:=]", text)))


def split_label(cell: str) -> tuple[str, str, str]:
    """Return a cell's label, the mark after it and the value: ("name", "=", "alice") for `name = "alice"`.

    Without a mark, the label is "".
    """
    label, mark, value = re.match(r"([^:=]*)([:=]?>?)(.*)", cell, re.DOTALL).groups()  # type: ignore[union-attr]
    return (_bare(label), mark, _stripped(value)) if mark else ("", "", _bare(cell))


def as_name(words: str) -> str:
    """Return `words` as the name of a key; "" if they are generic, a number, an address or part of a key."""
    if "\\u" in words:  # json.dumps escapes non-ASCII characters
        try:
            words = str(json.loads(f'"{words}"'))
        except ValueError:
            return ""
    words = " ".join(words.split())
    is_name = (
        len(words) <= LONGEST_NAME
        and words.isprintable()
        and any(map(str.isalpha, words))
        and not is_generic(words)
        and not calls_it_a_name(words)
        and not _NO_NAME.search(words)
    )
    return words if is_name else ""


def as_lone_name(words: str) -> str:
    """Return `as_name` for words that are not connected to the key; "" if they may be another secret."""
    return "" if _MAY_BE_SECRET.search(words[: LONGEST_NAME + 1]) else as_name(words)


def is_generic(words: str) -> bool:
    """Tell whether `words` only say that this is a key: GEMINI_API_KEY, x-goog-api-key, apiKey.

    With a number they are a name: GEMINI_API_KEY_2.
    """
    return _is_made_of(words, _GENERIC)


def heads_keys(words: str) -> bool:
    """Tell whether `words` can be the heading of keys, or of names and keys: api_key, Key, "name key"."""
    of_keys = [bool(_GENERIC.fullmatch(word)) for word in _words(words)]
    of_names = [bool(_CALLS_IT_A_NAME.fullmatch(word)) for word in _words(words)]
    return any(of_keys) and all(map(operator.or_, of_keys, of_names))


def is_placeholder(word: str) -> bool:
    """Tell whether `word` is a placeholder for a key: YOUR_API_KEY_HERE."""
    return _is_made_of(word, _IN_PLACE_OF_A_KEY)


def calls_it_a_name(label: str) -> bool:
    """Tell whether `label` introduces a name: name, Key name, label."""
    words = _words(label)
    return bool(words) and bool(_CALLS_IT_A_NAME.fullmatch(words[-1])) and all(map(_GENERIC.fullmatch, words[:-1]))


def _is_made_of(text: str, vocabulary: re.Pattern[str]) -> bool:
    words = _words(text)
    return bool(words) and all(map(vocabulary.fullmatch, words))


def _words(text: str) -> list[str]:
    """Return the words and numbers of a short text in lower case. camelCase is two words."""
    if len(text) > LONGEST_NAME:
        return []
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    return re.findall(r"[a-z]+|\d+|[^\W\da-z_]+", apart)


def _bare(words: str) -> str:
    """Return `words` without blanks, quotes, a bullet or `export` around them."""
    return _stripped(_SHELL.sub("", _stripped(_BULLET.sub("", words.lstrip()))))


def _stripped(words: str) -> str:
    return words.strip(_AROUND).rstrip("\\")  # from \"alice\", with escaped quotes
