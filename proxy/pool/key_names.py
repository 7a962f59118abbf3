"""What people call a key in a list of keys, and which words only say that it is a key. Pure functions."""

import json
import operator
import re
from typing import NamedTuple

LONGEST_NAME = 100
# Words that say "a Gemini key stands here", and nothing about which one it is.
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
# Where the word before a key begins: behind a quote, a piece of a URL, the bracket of a call.
_BEGINNING = re.compile(r"[\"?&/<>]|(?<=\w)\(|\s['`$]")
_NO_NAME = re.compile(r"AIza|AQ\.|://|%[0-9A-F]{2}|^(?:true|false|null|none)$", re.IGNORECASE)
# As long as a secret, with a digit as those have: may be somebody's secret for something else.
_MAY_BE_SECRET = re.compile(r"(?=\D*\d)[\w.+/-]{20,}", re.ASCII)


class Label(NamedTuple):
    """The words beside a key. is_marked: `:` or `=` binds them to it."""

    words: str
    is_marked: bool


def label_before(text: str) -> Label:
    """Return the words that end `text`, which stands before a key: `export ALICE="` gives ALICE."""
    pieces = [stripped for piece in re.split("[:=]", text) if (stripped := _stripped(piece))]
    words = _BEGINNING.split(pieces[-1])[-1] if pieces else ""
    return Label(_bare(words), text.rstrip(" \t\"'`([").endswith((":", "=", ">")))


def label_after(text: str) -> Label:
    """Return the words that begin `text`, which stands after a key: `": "alice"` gives alice."""
    pieces = [stripped for piece in re.split('[":=]', text, maxsplit=3) if (stripped := _stripped(piece))]
    return Label(_bare(pieces[0]) if pieces else "", bool(re.match(r"[\s\"'`]*[:=]", text)))


def split_label(cell: str) -> tuple[str, str, str]:
    """Return a cell's label, the mark after it and the value: ("name", "=", "alice") for `name = "alice"`.

    Without a mark, the label is "".
    """
    label, mark, value = re.match(r"([^:=]*)([:=]?>?)(.*)", cell, re.DOTALL).groups()  # type: ignore[union-attr]
    return (_bare(label), mark, _stripped(value)) if mark else ("", "", _bare(cell))


def as_name(words: str) -> str:
    """Return `words` as the name of a key, "" when they are none: generic, a number, an address, a part of a key."""
    if "\\u" in words:  # as json.dumps writes what is not ASCII
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
    """Return what `as_name` does for words that nothing binds to the key: not if they may be another secret."""
    return "" if _MAY_BE_SECRET.search(words[: LONGEST_NAME + 1]) else as_name(words)


def is_generic(words: str) -> bool:
    """Tell whether `words` say that a key stands there, and not which: GEMINI_API_KEY, x-goog-api-key, apiKey.

    With a number they say which: GEMINI_API_KEY_2 is a name.
    """
    return _is_made_of(words, _GENERIC)


def heads_keys(words: str) -> bool:
    """Tell whether `words` can stand above keys, or above names and keys: api_key, Key, "name key"."""
    of_keys = [bool(_GENERIC.fullmatch(word)) for word in _words(words)]
    of_names = [bool(_CALLS_IT_A_NAME.fullmatch(word)) for word in _words(words)]
    return any(of_keys) and all(map(operator.or_, of_keys, of_names))


def is_placeholder(word: str) -> bool:
    """Tell whether `word` stands where a key should be: YOUR_API_KEY_HERE."""
    return _is_made_of(word, _IN_PLACE_OF_A_KEY)


def calls_it_a_name(label: str) -> bool:
    """Tell whether `label` says that a name follows: name, Key name, label."""
    words = _words(label)
    return bool(words) and bool(_CALLS_IT_A_NAME.fullmatch(words[-1])) and all(map(_GENERIC.fullmatch, words[:-1]))


def _is_made_of(text: str, vocabulary: re.Pattern[str]) -> bool:
    words = _words(text)
    return bool(words) and all(map(vocabulary.fullmatch, words))


def _words(text: str) -> list[str]:
    """Return the words and numbers of a short text, in lower case; camelCase is two."""
    if len(text) > LONGEST_NAME:
        return []
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    return re.findall(r"[a-z]+|\d+|[^\W\da-z_]+", apart)


def _bare(words: str) -> str:
    """Return `words` without what surrounds names: blanks, quotes, a bullet, `export`."""
    return _stripped(_SHELL.sub("", _stripped(_BULLET.sub("", words.lstrip()))))


def _stripped(words: str) -> str:
    return words.strip(_AROUND).rstrip("\\")  # of \"alice\", quotes within quotes
