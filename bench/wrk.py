"""Runs wrk, the load generator for short requests."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

PATH = "/v1beta/models/gemini-2.5-flash:generateContent"


class Load(NamedTuple):
    """The result of one run. p50 and p99: milliseconds. errors: socket errors and statuses of 400 and above."""

    requests_per_second: float
    p50: float
    p99: float
    errors: int


def load(port: int, *, threads: int, connections: int, seconds: int) -> Load:
    """Post to `port` on loopback over `connections` for `seconds`."""
    script = Path(__file__).with_name("post.lua")
    options = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    command = ["wrk", *options, f"http://127.0.0.1:{port}{PATH}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    figures = json.loads(output.splitlines()[-1])
    per_second = figures["answers"] / figures["duration"] * 1e6
    return Load(per_second, figures["p50"] / 1e3, figures["p99"] / 1e3, figures["errors"])


def rounds(
    ports: Mapping[str, int],
    *,
    count: int,
    threads: int,
    connections: int,
    seconds: int,
) -> dict[str, Load]:
    """Load the servers in turn, `count` times after a warm-up. Return medians, and sums of errors."""
    loads: dict[str, list[Load]] = {name: [] for name in ports}
    for number in range(count + 1):
        for name, port in ports.items():
            length = seconds if number else 1
            answer = load(port, threads=threads, connections=connections, seconds=length)
            if number:
                loads[name].append(answer)
                print(f"{connections} connections, round {number}, {name}: {answer}", file=sys.stderr)
    return {name: together(several) for name, several in loads.items()}


def together(several: list[Load]) -> Load:
    """Return the medians of several runs, and the sum of their errors."""
    per_second, p50, p99, errors = zip(*several, strict=True)
    return Load(median(per_second), median(p50), median(p99), sum(errors))
