"""An upstream that answers every POST with server-sent events, each with the time at which it was sent.

python -m bench.stream_upstream PORT EVENTS INTERVAL_SECONDS [FIRST_BYTE_SECONDS]
"""

import asyncio
import re
import sys
from functools import partial
from time import monotonic

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
READY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
EVENT = (
    b'data: {"candidates":[{"content":{"parts":[{"text":"gold"}],"role":"model"}}],'
    b'"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":%d},"seq":%d,"sent":%.6f}\r\n\r\n'
)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Stream(asyncio.Protocol):
    """One connection. It is kept open for the next request unless the client sends `Connection: close`."""

    transport: asyncio.Transport

    def __init__(self, events: int, interval_seconds: float, first_byte_seconds: float) -> None:
        self.events, self.interval, self.first_byte = events, interval_seconds, first_byte_seconds
        self.request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.request += data
        head, end, body = self.request.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return
        self.request = b""
        if head.startswith(b"GET "):
            self.transport.write(READY)
            return
        self.is_last = b"connection: close" in head.lower()
        loop = asyncio.get_running_loop()
        self.start = loop.time() + self.first_byte
        if self.first_byte:
            loop.call_at(self.start, self.begin)
        else:
            self.begin()

    def begin(self) -> None:
        """Send the head and the first event."""
        if not self.transport.is_closing():
            self.transport.write(HEAD)
            self.send(0)

    def send(self, seq: int) -> None:
        """Send event `seq` and schedule the next one relative to the start, so that delays do not add up."""
        if self.transport.is_closing():
            return
        event = EVENT % (seq + 1, seq, monotonic())
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        if seq + 1 < self.events:
            due = self.start + (seq + 1) * self.interval
            asyncio.get_running_loop().call_at(due, self.send, seq + 1)
            return
        self.transport.write(b"0\r\n\r\n")
        if self.is_last:
            self.transport.close()


async def main(port: int, events: int, interval_seconds: float, first_byte_seconds: float) -> None:
    """Serve on loopback until killed."""
    loop = asyncio.get_running_loop()
    make = partial(Stream, events, interval_seconds, first_byte_seconds)
    server = await loop.create_server(make, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float((*sys.argv, "0")[4])))
