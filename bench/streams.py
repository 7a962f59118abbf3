"""A thousand streams at once: complete, on time, even? Beside the same load sent directly to the upstream."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from time import sleep

from bench.processes import ROOT, children, cpu_seconds, free_port, memory_mb, product, running
from bench.table import Row

STREAMS, RAMP_SECONDS, EVENTS, INTERVAL_SECONDS = 1000, 2.0, 100, 0.1
ROUNDS = 3
IDEAL_SECONDS = RAMP_SECONDS * (1 - 1 / STREAMS) + (EVENTS - 1) * INTERVAL_SECONDS
FIGURES: list[tuple[str, str, str, Callable[[list[float]], float]]] = [
    (f"whole, of {STREAMS:,}", "", "whole", min),
    (f"last event (ideal {IDEAL_SECONDS:.2f})", "s", "last", median),
    ("gap deviation p99", "ms", "gap_p99", median),
    ("gap deviation max", "ms", "gap_max", max),
    ("one-way delay p99", "ms", "delay_p99", median),
    ("both workers, RSS", "MB", "rss", median),
    ("both workers, PSS", "MB", "pss", median),
    ("both workers, CPU", "s", "cpu", median),
]


def streams() -> list[Row]:
    """Return the figures of STREAMS streams, through the product and directly from the upstream."""
    ports = {"direct": free_port(), "product": free_port()}
    upstream = [sys.executable, "-m", "bench.stream_upstream"]
    upstream += [str(ports["direct"]), str(EVENTS), str(INTERVAL_SECONDS)]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            running(upstream, port=ports["direct"], log=folder / "upstream.log"),
            product(folder / "product", upstream_port=ports["direct"], port=ports["product"]) as master,
        ):
            for number in range(1, ROUNDS + 1):
                for name, port in ports.items():
                    rounds[name].append(_round(port, children(master) if name == "product" else []))
                    print(f"{STREAMS} streams, round {number}, {name}: {rounds[name][-1]}", file=sys.stderr)
    ours, direct = rounds["product"], rounds["direct"]
    return [
        Row("streams", figure, unit, together(_column(ours, name)), together(_column(direct, name)) or None)
        for figure, unit, name, together in FIGURES
    ]


def _column(rounds: list[dict[str, float]], name: str) -> list[float]:
    return [one[name] for one in rounds]


def _round(port: int, workers: list[int]) -> dict[str, float]:
    """Return the load generator's figures for `port`, and the memory and CPU time of the `workers`."""
    numbers = [port, STREAMS, RAMP_SECONDS, EVENTS, INTERVAL_SECONDS]
    before = cpu_seconds(workers)
    command = [sys.executable, "-m", "bench.stream_load", *map(str, numbers)]
    with Popen(command, cwd=ROOT, stdout=PIPE, text=True) as generator:
        try:
            sleep(RAMP_SECONDS + EVENTS * INTERVAL_SECONDS / 2)  # all streams are open at this moment
            rss, pss = memory_mb(workers)
            output, _ = generator.communicate(timeout=120)
        finally:
            generator.kill()
    seen: dict[str, float] = json.loads(output)
    return seen | {"rss": rss, "pss": pss, "cpu": cpu_seconds(workers) - before}
