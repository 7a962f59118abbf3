"""Decompresses request bodies (gzip or deflate) to read the model. The body is forwarded as it came."""

import mmap
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.bodies.decompression import STEP, CorruptBody, Decompressor


class TooLargeDecompressed(ValueError):
    """The decompressed body is larger than allowed."""


@contextmanager
def decompressed(body: bytes | mmap.mmap, encoding: str, most: int) -> Iterator[bytes | mmap.mmap]:
    """Yield the decompressed body, or the body itself if it is not compressed.

    encoding: its Content-Encoding. most: the largest size allowed after decompression, in bytes; TooLargeDecompressed
    is raised beyond. A corrupt body yields what comes before the damage, since Google will report the error. Other
    greenlets can run in the meantime.
    """
    decompressor = Decompressor(encoding)
    if not decompressor.is_readable:
        yield body
        return
    with tempfile.TemporaryFile() as file:
        size = 0
        try:
            for step in _steps(decompressor, body):
                file.write(step)
                if (size := size + len(step)) > most:
                    raise TooLargeDecompressed
        except CorruptBody:
            pass
        file.flush()
        if not size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _steps(decompressor: Decompressor, body: bytes | mmap.mmap) -> Iterator[bytes]:
    for start in range(0, len(body), STEP):
        decompressor.feed(body[start : start + STEP])
        for step in decompressor.steps():
            yield step
            time.sleep(0)
