"""Token counts, read while an answer passes, however it is split, framed or compressed, whatever else is in it."""

import gzip
import json
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.bodies.slices import SLICE_BYTES
from proxy.gemini.tokens import TokenMeter, Tokens, estimate_input_tokens

FINAL = {"promptTokenCount": 35, "candidatesTokenCount": 12, "thoughtsTokenCount": 62, "totalTokenCount": 109}
EXPECTED = Tokens(35, 12, 62, 0)
DECOY = {
    "promptTokenCount": 999,
    "candidatesTokenCount": 999,
    "thoughtsTokenCount": 999,
    "cachedContentTokenCount": 999,
}
TEXTS = [
    "plain",
    'says "usageMetadata": {"promptTokenCount": 999} in so many words',
    '"usage":{"prompt_tokens":999,"completion_tokens":999}',
    '\\"usageMetadata\\": {"promptTokenCount": 999}',
    "Grüße ✨ \u2028 }]}{",
]


def read(pieces: Iterable[bytes], encoding: str = "") -> Tokens:
    """Return what a meter has found after it read `pieces`."""
    meter = TokenMeter(encoding)
    for piece in pieces:
        meter.feed(piece)
    return meter.tokens


def cut(content: bytes, places: Iterable[int]) -> list[bytes]:
    """Return `content` split at `places`, which may repeat and lie beyond its end."""
    ends = [*sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def chunk(text: str, done: float = 1.0, **more: Any) -> dict[str, Any]:
    usage = FINAL | {"candidatesTokenCount": int(12 * done), "promptTokensDetails": [{"modality": "TEXT"}]}
    parts = [{"text": text}, *([{"functionCall": {"name": "f", "args": more}}] if more else [])]
    return {"candidates": [{"content": {"parts": parts}}], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}


def chunks() -> list[dict[str, Any]]:
    return [chunk(text, (n + 1) / len(TEXTS), usage=DECOY) for n, text in enumerate(TEXTS)]


def sse(documents: Iterable[Any], end: bytes = b"\r\n\r\n") -> bytes:
    return b"".join(b"data: " + json.dumps(document).encode() + end for document in documents)


ANSWERS = {
    "SSE": sse(chunks()),
    "SSE with LF": sse(chunks(), b"\n\n"),
    "array": b"[" + b",\r\n".join(json.dumps(part, ensure_ascii=False).encode() for part in chunks()) + b"\n]",
    "single": json.dumps(chunk(TEXTS[1], usage=DECOY)).encode(),
    "pretty": json.dumps(chunk(TEXTS[2], usage=DECOY), indent=2).encode(),
    "pretty array": json.dumps(chunks(), indent=4, ensure_ascii=False).encode(),
    "compact": json.dumps(chunk(TEXTS[3], usage=DECOY), separators=(",", ":")).encode(),
    "broad": json.dumps(chunk("x"), separators=(",  \t", "  :\n   ")).encode(),
    "OpenAI": json.dumps(
        {"choices": [], "usage": {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}}
    ).encode(),
    "OpenAI SSE": sse(
        [
            {"choices": [{"delta": {"content": TEXTS[2]}}], "usage": None},
            {"choices": [], "usage": {"completion_tokens": 12, "prompt_tokens": 35, "total_tokens": 109}},
        ],
        b"\n\n",
    )
    + b"data: [DONE]\n\n",
    "interactions": sse(
        [
            {"event_type": "step.delta", "delta": {"text": TEXTS[1]}},
            {"usage": {"total_input_tokens": 35, "total_output_tokens": 12, "total_thought_tokens": 62}},
        ]
    ),
    "long text": json.dumps(chunk(TEXTS[1] * 3000)).encode(),
    "text after it": json.dumps({"usageMetadata": FINAL, "text": TEXTS[1] * 3000}).encode(),
}


def compressed(content: bytes, places: Iterable[int], wbits: int) -> bytes:
    """Return `content` compressed, with a flush at each place, as Google sends a growing array."""
    packer = zlib.compressobj(wbits=wbits)
    pieces = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in cut(content, places)]
    return b"".join(pieces) + packer.flush()


CUTS = st.lists(st.integers(0, 100_000), max_size=12)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_last_usage_of_a_whole_answer_counts(name: str) -> None:
    assert read([ANSWERS[name]]) == EXPECTED


@pytest.mark.parametrize("name", [name for name in ANSWERS if len(ANSWERS[name]) < 10_000])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_an_answer_in_crumbs_counts_the_same(name: str, size: int) -> None:
    content = ANSWERS[name]

    assert read(content[start : start + size] for start in range(0, len(content), size)) == EXPECTED


@given(name=st.sampled_from(sorted(ANSWERS)), places=CUTS)
@settings(max_examples=100, deadline=None)
def test_an_answer_counts_the_same_however_it_is_cut(name: str, places: list[int]) -> None:
    assert read(cut(ANSWERS[name], places)) == EXPECTED


@given(name=st.sampled_from(sorted(ANSWERS)), flushes=CUTS, places=CUTS, is_gzip=st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_compressed_answer_counts_the_same_however_it_is_flushed_and_cut(
    name: str, flushes: list[int], places: list[int], is_gzip: bool
) -> None:
    content = compressed(ANSWERS[name], flushes, 31 if is_gzip else 15)

    assert read(cut(content, places), "gzip" if is_gzip else "deflate") == EXPECTED


@given(end=st.integers(0, 10_000), places=CUTS)
@example(end=len(sse([chunk("x")])) + 150, places=[])
@settings(max_examples=100, deadline=None)
def test_a_stream_that_breaks_off_counts_the_same_however_it_was_cut(end: int, places: list[int]) -> None:
    """The client disconnected, or the answer was cut off. The tokens until then are in the last complete usage."""
    content = ANSWERS["SSE"][: end % len(ANSWERS["SSE"])]

    assert read(cut(content, places)) == read([content[n : n + 1] for n in range(len(content))])


def test_a_usage_that_breaks_off_leaves_the_one_before_it() -> None:
    content = sse([{"usageMetadata": FINAL}]) + b'data: {"usageMetadata": {"promptTokenCount": 3'

    assert read([content]) == EXPECTED


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"usageMetadata": {"promptTokenCount": 5}}, Tokens(prompt=5)),
        ({"usageMetadata": {}}, Tokens()),
        ({"usageMetadata": {"promptTokenCount": 5, "cachedContentTokenCount": 3}}, Tokens(prompt=5, cached=3)),
        ({"usageMetadata": {"promptTokenCount": 5, "toolUsePromptTokenCount": 7}}, Tokens(prompt=12)),
        ({"usageMetadata": {"promptTokenCount": -5, "candidatesTokenCount": "7"}}, Tokens()),
        ({"usageMetadata": {"promptTokenCount": True, "candidatesTokenCount": 1.5}}, Tokens()),
        ({"usageMetadata": {"promptTokenCount": [1], "candidatesTokenCount": {}}}, Tokens()),
        ({"usageMetadata": None}, Tokens()),
        ({"usageMetadata": [FINAL]}, Tokens()),
        ({"usage": {"prompt_tokens": 5, "total_tokens": 5}}, Tokens(prompt=5)),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}, Tokens(5, 7)),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 40}}, Tokens(5, 7, 28)),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 7}}, Tokens(5, 7)),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 3}}, Tokens(5, 7)),
        ({"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}}, Tokens(5, cached=4)),
        ({"usage": {"prompt_tokens": 5, "prompt_tokens_details": None}}, Tokens(5)),
        ({"usage": {"total_input_tokens": 5, "total_cached_tokens": 2}}, Tokens(5, cached=2)),
        ({"totalTokens": 31}, Tokens()),
        ({"embedding": {"values": [0.1]}}, Tokens()),
    ],
)
def test_each_form_of_usage_is_read(usage: dict[str, Any], tokens: Tokens) -> None:
    assert read([json.dumps(usage).encode()]) == tokens


@pytest.mark.parametrize("text", TEXTS)
def test_usage_in_the_text_of_a_model_does_not_count(text: str) -> None:
    assert read([json.dumps({"text": text}).encode()]) == Tokens()


HOSTILE = [
    b'"usage":{"a":' + b"[" * 16_000,
    b'"usageMetadata":' + b'{"a":' * 16_000,
    b'"usage":{' * 5_000,
    b'"usage":{"prompt_tokens":' + b"9" * 5_000 + b"}",
    b'"usage":{"prompt_tokens":1e999,"total_tokens":NaN}',
    b'"usage"' * 5_000,
    b'"usage":' + b" " * 100_000 + b"{}",
    b'"usage":{"\xff\xfe":1,"prompt_tokens":2}',
]


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[:20]))
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_hostile_bytes_do_not_break_a_stream(content: bytes, encoding: str) -> None:
    sent = gzip.compress(content) if encoding else content

    read(cut(sent, [100, 5_000, 16_385]), encoding)


@given(
    content=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b'"usage":{', b'"usageMetadata":{', b"}"]))),
    encoding=st.sampled_from(["", "identity", "gzip", "GZIP", "deflate", "br", "zstd", "nonsense"]),
)
@settings(max_examples=80, deadline=None)
def test_no_bytes_break_a_stream(content: list[bytes], encoding: str) -> None:
    assert all(number >= 0 for number in read(content, encoding))


@given(garbage=st.binary(min_size=1, max_size=60), place=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_damage_in_a_compressed_answer_breaks_nothing(garbage: bytes, place: int) -> None:
    content = compressed(ANSWERS["SSE"], [500, 900], 31)
    place %= len(content)

    read(cut(content[:place] + garbage + content[place:], [50, 51, 300]), "gzip")


def test_what_was_read_before_the_damage_counts() -> None:
    packer = zlib.compressobj(wbits=31)
    good = packer.compress(ANSWERS["SSE"]) + packer.flush(zlib.Z_SYNC_FLUSH)

    assert read([good, b"\xff" * 100, good], "gzip") == EXPECTED


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br"])
def test_an_encoding_that_cannot_be_read_counts_nothing(encoding: str) -> None:
    assert read([ANSWERS["single"]], encoding) == Tokens()


@given(
    before=st.integers(SLICE_BYTES - 1200, SLICE_BYTES + 10),
    blobs=st.lists(st.integers(1024, 3 * SLICE_BYTES), max_size=4),
    name=st.sampled_from(["data", "url"]),
)
@settings(max_examples=100, deadline=None)
def test_each_blob_of_a_request_counts_once_wherever_the_body_is_cut(before: int, blobs: list[int], name: str) -> None:
    body = f'{{"text":"{"x" * before}",' + ",".join(f'"{name}": "{"A" * size}"' for size in blobs) + "}"
    counted = sum(size + len(f'"{name}": "') for size in blobs)

    assert estimate_input_tokens(body.encode()) == (len(body) - counted) // 4 + 1000 * len(blobs)
