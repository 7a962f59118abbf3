"""Decompression, however the data is split, and bodies that are made to waste CPU time."""

import gzip
import os
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.bodies.decompression import STEP, CorruptBody, Decompressor


def decompressed(compressed: bytes, encoding: str, piece_size: int = 65_536) -> bytes:
    decompressor, clear = Decompressor(encoding), b""
    for start in range(0, len(compressed), piece_size):
        decompressor.feed(compressed[start : start + piece_size])
        for step in decompressor.steps():
            assert len(step) <= STEP
            clear += step
    return clear


def bare_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


@given(members=st.lists(st.binary(max_size=2_000), min_size=1, max_size=6), size=st.integers(1, 3_000))
@settings(max_examples=60, deadline=None)
def test_every_member_of_a_gzip_body_is_unpacked_however_it_is_cut(members: list[bytes], size: int) -> None:
    assert decompressed(b"".join(map(gzip.compress, members)), "gzip", size) == b"".join(members)


@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
@pytest.mark.parametrize("encoding", ["deflate", "DEFLATE "])
@pytest.mark.parametrize("pack", [zlib.compress, bare_deflate, gzip.compress])
def test_deflate_of_every_kind_is_decompressed(pack: object, encoding: str, size: int) -> None:
    assert callable(pack)
    assert decompressed(pack(b"hello " * 100), encoding, size) == b"hello " * 100


@pytest.mark.parametrize("tail", [b"\0" * 700, b"garbage", b"\r\n", b"\x1f", b"{"])
@pytest.mark.parametrize("size", [1, 1_000])
def test_data_after_the_last_member_is_ignored(tail: bytes, size: int) -> None:
    assert decompressed(gzip.compress(b"one") + gzip.compress(b"two") + tail, "gzip", size) == b"onetwo"


@pytest.mark.parametrize("size", [STEP - 1, STEP, STEP + 1, STEP + 100, STEP * 3])
def test_nothing_is_left_behind_at_the_edge_of_a_step(size: int) -> None:
    content = b"a" * size

    assert decompressed(gzip.compress(content), "gzip", 10_000_000) == content


def test_output_beyond_the_limit_comes_with_the_next_call() -> None:
    content = os.urandom(STEP) * 3
    decompressor = Decompressor("gzip")
    decompressor.feed(gzip.compress(content))

    clear = next(decompressor.steps())

    assert clear + b"".join(decompressor.steps()) == content


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(300)) + packer.flush()
    decompressor = Decompressor("gzip")
    decompressor.feed(bomb)
    sizes = map(len, decompressor.steps())

    with pytest.raises(CorruptBody):
        list(zip(range(600), sizes, strict=False))


@pytest.mark.parametrize(
    "compressed",
    [b"no gzip", gzip.compress(b"x" * 500)[:-8] + bytes(8), gzip.compress(b"") * 2_000],
    ids=["plain text", "damaged", "too many members"],
)
def test_a_body_in_another_format_than_declared_is_refused(compressed: bytes) -> None:
    with pytest.raises(CorruptBody):
        decompressed(compressed, "gzip")


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "nonsense"])
def test_an_encoding_that_is_not_known_is_not_readable(encoding: str) -> None:
    assert not Decompressor(encoding).is_readable
