"""Request bodies that come packed with gzip or deflate: what is in them, to read the model; they travel on packed."""

import mmap
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.bodies.decompression import STEP, BadPacking, Unpacker


class TooLargeUnpacked(ValueError):
    """The body unpacks to more than may be sent."""


@contextmanager
def unpacked(body: bytes | mmap.mmap, encoding: str, most: int) -> Iterator[bytes | mmap.mmap]:
    """Give what is in a body that came with this Content-Encoding; the body itself where nothing is packed.

    most: bytes, of what it unpacks to; beyond that TooLargeUnpacked is raised. Of a damaged body it gives what came
    before the damage: Google will say what it thinks of it. Lets other greenlets run while it unpacks.
    """
    unpacker = Unpacker(encoding)
    if not unpacker.is_readable:
        yield body
        return
    with tempfile.TemporaryFile() as file:
        size = 0
        try:
            for step in _steps(unpacker, body):
                file.write(step)
                if (size := size + len(step)) > most:
                    raise TooLargeUnpacked
        except BadPacking:
            pass
        file.flush()
        if not size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _steps(unpacker: Unpacker, body: bytes | mmap.mmap) -> Iterator[bytes]:
    for start in range(0, len(body), STEP):
        unpacker.feed(body[start : start + STEP])
        for step in unpacker.steps():
            yield step
            time.sleep(0)
