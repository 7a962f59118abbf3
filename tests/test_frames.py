"""WebSocket frames: split, unmasked and made, compared with the library `websockets`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Opcode
from websockets.frames import Frame as LibraryFrame

from proxy.live.frames import CLOSE, Frame, FrameReader, TooLarge, accept_for, close_frame

SIZES = st.sampled_from([0, 1, 2, 125, 126, 127, 65_535, 65_536, 100_000])
FRAMES = st.lists(
    st.tuples(st.sampled_from([Opcode.CONT, Opcode.TEXT, Opcode.BINARY]), SIZES, st.booleans(), st.booleans()),
    min_size=1,
    max_size=4,
)


def read(content: bytes, cuts: list[int], most: int = 1_000_000) -> list[Frame]:
    """Feed the content in pieces that end at the cuts."""
    reader, found, begin = FrameReader(most), [], 0
    for end in [*sorted(cut % (len(content) + 1) for cut in cuts), len(content)]:
        found += list(reader.feed(content[begin:end]))
        begin = end
    return found


@given(FRAMES, st.lists(st.integers(0, 200_000), max_size=6))
def test_frames_are_found_however_they_arrive(made: list[tuple[Opcode, int, bool, bool]], cuts: list[int]) -> None:
    payloads = [bytes(n % 251 for n in range(size)) for _, size, _, _ in made]
    raws = [
        LibraryFrame(opcode, payload, fin=is_last).serialize(mask=is_masked)
        for (opcode, _, is_last, is_masked), payload in zip(made, payloads, strict=True)
    ]
    found = read(b"".join(raws), cuts)

    assert [(frame.opcode, frame.is_last, frame.payload, frame.raw) for frame in found] == [
        (opcode, is_last, payload, raw)
        for (opcode, _, is_last, _), payload, raw in zip(made, payloads, raws, strict=True)
    ]


@pytest.mark.parametrize("mask", [b"", b"\0\0\0\0", b"\1\2\3\4"])
@pytest.mark.parametrize(
    ("reason", "sent"), [("", ""), ("Grüße", "Grüße"), ("x" * 200, "x" * 123), ("ü" * 100, "ü" * 61)]
)
def test_a_close_frame_says_why(mask: bytes, reason: str, sent: str) -> None:
    [frame] = read(close_frame(1011, reason, mask), [])

    assert (frame.opcode, frame.close_code, frame.close_reason) == (CLOSE, 1011, sent)
    assert Close.parse(frame.payload) == Close(1011, sent)


def test_a_close_frame_may_say_nothing() -> None:
    [frame] = read(b"\x88\x00", [])
    assert (frame.close_code, frame.close_reason) == (1005, "")


@pytest.mark.parametrize(
    "head", [b"\x82\x7e\x10\x01", b"\x82\x7f\x00\x00\x00\x00\x00\x00\x10\x01", b"\x82\x7f" + 8 * b"\xff"]
)
def test_a_frame_that_is_too_large_is_refused_at_its_head(head: bytes) -> None:
    with pytest.raises(TooLarge):
        read(head, [], most=4096)


def test_the_handshake_is_that_of_the_standard() -> None:
    assert accept_for("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
