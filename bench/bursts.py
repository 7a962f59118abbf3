"""Bursts to a pool with unknown limits: the time until the last answer, beside the upstream alone."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.processes import ROOT, free_port, product, running
from bench.table import Row


class Burst(NamedTuple):
    """Requests that are sent at the same time."""

    keys: int
    requests: int
    first_byte_seconds: float
    events: int = 1  # of each answer, a second apart

    def __str__(self) -> str:
        length = f" and last {self.events} s" if self.events > 1 else ""
        return f"{self.requests:,} at once, keys {self.keys}, answers begin after {self.first_byte_seconds:g} s{length}"


BURSTS = [Burst(1, 20, 3), Burst(1, 60, 8), Burst(10, 200, 1), Burst(50, 5000, 2, events=10)]


def bursts() -> list[Row]:
    """Return how long each burst takes through the product, with a new database, and directly to the upstream."""
    return [row for burst in BURSTS for row in _rows(burst)]


def _rows(burst: Burst) -> list[Row]:
    upstream_port, port = free_port(), free_port()
    upstream = [sys.executable, "-m", "bench.stream_upstream", str(upstream_port), str(burst.events), "1"]
    upstream.append(str(burst.first_byte_seconds))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running(upstream, port=upstream_port, log=folder / "upstream.log"):
            direct = _load(upstream_port, burst)
            with product(folder / "product", upstream_port=upstream_port, port=port, keys=burst.keys):
                ours = _load(port, burst)
    print(f"{burst}: {ours}, direct: {direct}", file=sys.stderr)
    return [
        Row("bursts", f"{burst}: last answer", "s", ours["last"], direct["last"]),
        Row("bursts", "... whole", "", ours["whole"], direct["whole"]),
        Row("bursts", "... other than 200", "", ours["refused"], direct["refused"]),
    ]


def _load(port: int, burst: Burst) -> dict[str, float]:
    seconds = burst.first_byte_seconds + burst.events
    numbers = [port, burst.requests, 0.0, burst.events, seconds / burst.events]
    command = [sys.executable, "-m", "bench.stream_load", *map(str, numbers)]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    seen: dict[str, float] = json.loads(output)
    return seen
