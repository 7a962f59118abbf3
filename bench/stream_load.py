"""Opens many streams, records what arrives and when, and evaluates it at the end. Prints JSON.

python -m bench.stream_load PORT STREAMS RAMP_SECONDS EVENTS INTERVAL_SECONDS
"""

import asyncio
import gc
import json
import re
import sys
from bisect import bisect_left
from itertools import accumulate, pairwise
from time import monotonic
from typing import NamedTuple

GRACE_SECONDS = 60
BODY = b'{"contents": [{"role": "user", "parts": [{"text": "Go on."}]}]}'
REQUEST = b"\r\n".join([
    b"POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse HTTP/1.1", b"Host: 127.0.0.1",
    b"Connection: close", b"Content-Type: application/json", b"x-goog-api-key: PLACEHOLDER_GEMINI_TOKEN",
    b"Content-Length: %d" % len(BODY), b"", BODY,
])  # fmt: skip
EVENT = re.compile(rb'"seq":(\d+),"sent":([0-9.]+)\}\r\n\r\n')


class Event(NamedTuple):
    """Event number `seq`: when the upstream sent it, and when its last byte arrived, in seconds of one clock."""

    seq: int
    sent: float
    arrived: float


class Stream(asyncio.Protocol):
    """One request. While it runs, bytes and times are only stored."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.times: list[float] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.times.append(monotonic())
        self.pieces.append(data)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def events(self) -> list[Event]:
        """Return the events of the answer. Raise ValueError if it was cut off."""
        raw, body = b"".join(self.pieces), bytearray()
        chunk_ends: list[tuple[int, int]] = []  # of each HTTP chunk, its end in `body` and in `raw`
        at = raw.index(b"\r\n\r\n") + 4
        while size := int(raw[at : raw.index(b"\r\n", at)], 16):
            at = raw.index(b"\r\n", at) + 2 + size
            body += raw[at - size : at]
            chunk_ends.append((len(body), at))
            at += 2
        piece_ends = list(accumulate(map(len, self.pieces)))
        events = []
        for match in EVENT.finditer(body):
            body_end, raw_end = chunk_ends[bisect_left(chunk_ends, (match.end(), 0))]
            piece = bisect_left(piece_ends, raw_end - (body_end - match.end()))
            events.append(Event(int(match[1]), float(match[2]), self.times[piece]))
        return events


async def run(port: int, streams: int, ramp_seconds: float, length_seconds: float) -> list[Stream]:
    """Open `streams` evenly over `ramp_seconds`. Return those that ended in time."""
    start = monotonic()

    async def stream(number: int) -> Stream:
        await asyncio.sleep(start + number * ramp_seconds / streams - monotonic())
        _, protocol = await asyncio.get_running_loop().create_connection(Stream, "127.0.0.1", port)
        await protocol.ended
        return protocol

    tasks = [asyncio.create_task(stream(number)) for number in range(streams)]
    done, late = await asyncio.wait(tasks, timeout=ramp_seconds + length_seconds + GRACE_SECONDS)
    for task in late:
        task.cancel()
    return [task.result() for task in done if not task.exception()]


def figures(streams: list[Stream], events: int) -> dict[str, float]:
    """Return how many `streams` are complete, and how evenly events arrived. Times are in ms, but `last` is in seconds.

    The deviation of a gap is the difference between its length at the client and at the upstream.
    """
    whole: list[list[Event]] = []
    for stream in streams:
        try:
            found = stream.events()
        except ValueError:
            continue
        if [event.seq for event in found] == list(range(events)):
            whole.append(found)
    gaps = [
        abs((later.arrived - earlier.arrived) - (later.sent - earlier.sent)) * 1e3
        for found in whole
        for earlier, later in pairwise(found)
    ]
    delays = [(event.arrived - event.sent) * 1e3 for found in whole for event in found]
    return {
        "whole": len(whole),
        "refused": sum(not b"".join(stream.pieces[:1]).startswith(b"HTTP/1.1 200 ") for stream in streams),
        "last": max((found[-1].arrived for found in whole), default=0.0),
        "gap_p99": _p99(gaps),
        "gap_max": max(gaps, default=0.0),
        "delay_p99": _p99(delays),
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100] if values else 0.0


def main() -> None:
    """Load, evaluate, print."""
    port, count, ramp_seconds, events, interval_seconds = (json.loads(argument) for argument in sys.argv[1:])
    gc.disable()  # a pause here would look like a pause of the product
    start = monotonic()
    streams = asyncio.run(run(port, count, ramp_seconds, events * interval_seconds))
    answer = figures(streams, events)
    print(json.dumps(answer | {"last": answer["last"] - start}))


if __name__ == "__main__":
    main()
