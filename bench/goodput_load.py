"""The clients of the simulation, steady and bursty. They send real HTTP requests, from one thread."""

import asyncio
import math
import random
import time
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from bench.goodput_pool import FLASH, LITE

TIMEOUT_SECONDS = 120
# Requests per second of steady clients for each model, at medium demand.
STEADY = {FLASH: 4.0, LITE: 5.5}
# The parts of the phase: length, as a share of the phase, and demand. The middle part exceeds the limits.
STRETCHES = [(0.3, 0.6), (0.4, 1.4), (0.3, 0.6)]
BURST_EVERY_SECONDS, BURST_SIZE = (15.0, 20.0), (8, 12)
_TOKENS_MEDIAN, _TOKENS_SPREAD, _TOKENS_LEAST, _TOKENS_MOST = 150, 0.8, 20, 2_000
_CHARACTERS_PER_TOKEN = (3.9, 4.1)


class Request(NamedTuple):
    """A request that is planned. seconds: when, after the start of the phase. tokens: of the input."""

    seconds: float
    model: str
    tokens: int
    characters: int
    is_streaming: bool


class Outcome(NamedTuple):
    """A request as its client saw it. moment: when it was sent, by `time.time()`; seconds: how long it took.

    said: the status, or why there was none. headers: names in lower case.
    """

    moment: float
    model: str
    tokens: int
    said: str
    seconds: float
    headers: dict[str, str]

    @property
    def is_answered(self) -> bool:
        return self.said == "200"


def plan(seconds: float, seed: int) -> list[Request]:
    """Return the requests of a phase in order of time. The same seed gives the same requests."""
    chance = random.Random(seed)
    moments = [(moment, model) for model in STEADY for moment in [*_steady(seconds, STEADY[model], chance)]]
    moments += [(moment, model) for model in STEADY for moment in [*_bursts(seconds, chance)]]
    return [_request(moment, model, chance) for moment, model in sorted(moments)]


def _steady(seconds: float, per_second: float, chance: random.Random) -> Iterator[float]:
    """Yield the moments of a Poisson process whose rate follows STRETCHES."""
    ends = [share * seconds for share in accumulate(share for share, _ in STRETCHES)]
    highest = max(height for _, height in STRETCHES)
    moment = chance.expovariate(per_second * highest)
    while moment < seconds:
        height = next(
            height for end, (_, height) in zip(ends, STRETCHES, strict=True) if moment < end or end == ends[-1]
        )
        if chance.random() < height / highest:
            yield moment
        moment += chance.expovariate(per_second * highest)


def _bursts(seconds: float, chance: random.Random) -> Iterator[float]:
    moment = chance.uniform(0, BURST_EVERY_SECONDS[0])
    while moment < seconds:
        yield from [moment] * chance.randint(*BURST_SIZE)
        moment += chance.uniform(*BURST_EVERY_SECONDS)


def _request(seconds: float, model: str, chance: random.Random) -> Request:
    drawn = chance.lognormvariate(math.log(_TOKENS_MEDIAN), _TOKENS_SPREAD)
    tokens = int(min(max(drawn, _TOKENS_LEAST), _TOKENS_MOST))
    characters = int(tokens * chance.uniform(*_CHARACTERS_PER_TOKEN))
    return Request(seconds, model, tokens, characters, is_streaming=chance.random() < 0.3)


async def ask_all(requests: list[Request], port: int) -> list[Outcome]:
    """Send each request at its time, whether or not others have finished. Return the outcomes in the same order."""
    start = time.monotonic()

    async def ask_in_time(request: Request) -> Outcome:
        await asyncio.sleep(start + request.seconds - time.monotonic())
        return await _ask(request, port)

    return await asyncio.gather(*map(ask_in_time, requests))


async def _ask(request: Request, port: int) -> Outcome:
    moment, start = time.time(), time.monotonic()
    said, headers = "", dict[str, str]()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            said, headers = _read(await _exchange(_encode(request), port))
    except (OSError, TimeoutError) as exc:
        said = type(exc).__name__
    return Outcome(moment, request.model, request.tokens, said, time.monotonic() - start, headers)


async def _exchange(content: bytes, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        return await reader.read()
    finally:
        writer.close()


def _encode(request: Request) -> bytes:
    body = b'{"contents": [{"parts": [{"text": "%b"}]}], "input_tokens": %d}'
    body %= (
        (b"Seven words of text for Gemini here. " * (request.characters // 36 + 1))[: request.characters],
        request.tokens,
    )
    action = "streamGenerateContent?alt=sse" if request.is_streaming else "generateContent"
    head = [
        f"POST /v1beta/models/{request.model}:{action} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        "Content-Type: application/json",
        "x-goog-api-key: PLACEHOLDER_GEMINI_TOKEN",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _read(answer: bytes) -> tuple[str, dict[str, str]]:
    """Return the status and headers of an answer. An incomplete answer has "cut off" in place of the status."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    if "chunked" in headers.get("transfer-encoding", ""):
        is_whole = body.endswith(b"0\r\n\r\n")
    else:
        is_whole = len(body) == int(headers.get("content-length", -1))
    return (status.split(" ")[1] if is_whole else "cut off"), headers
