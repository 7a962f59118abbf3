"""Requests per second with 32 connections, beside nginx in the product's place and the obvious stack."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import nginx
from bench.processes import DATABASE, children, cpu_seconds, free_port, product, running
from bench.table import Row
from bench.wrk import rounds


def rps() -> list[Row]:
    """Return throughput, latencies, errors and CPU time. Print how many requests were served and counted."""
    names = ["product", "nginx", "obvious", "kept"]
    upstreams = {name: free_port() for name in names}
    ports = {name: free_port() for name in names}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        obvious = [sys.executable, "-m", "bench.obvious", str(folder / "obvious.sqlite3")]
        obvious += [str(upstreams["obvious"]), str(ports["obvious"])]
        with (
            # Each has its own upstream port, so that its requests can be counted.
            nginx.static_upstream(folder, list(upstreams.values())),
            nginx.limit(folder, upstream_port=upstreams["nginx"], port=ports["nginx"]),
            nginx.limit(folder, upstream_port=upstreams["kept"], port=ports["kept"], keeps_connections=True),
            running(obvious, port=ports["obvious"], log=folder / "obvious.log"),
            product(folder / "product", upstream_port=upstreams["product"], port=ports["product"]) as master,
        ):
            pids = [master, *children(master)]
            before = cpu_seconds(pids)
            loads = rounds(ports, count=3, threads=2, connections=32, seconds=5)
            cpu = cpu_seconds(pids) - before
        # Count after all have stopped: when wrk exits, some answers are still in transit, and those count too.
        counted, served = _counted(folder / "product"), nginx.served(folder, upstreams["product"])
    print(f"counted {counted:,} of {served:,}\n")
    units = {"requests_per_second": "1/s", "p50": "ms", "p99": "ms", "errors": ""}
    rows = [
        Row("rps", figure.replace("_", " "), unit, *(getattr(loads[name], figure) for name in names[:3]))
        for figure, unit in units.items()
    ]
    kept = loads["kept"].requests_per_second
    rows.insert(1, Row("rps", "requests per second, kept", "1/s", loads["product"].requests_per_second, kept))
    rows.append(Row("rps", "CPU per request, all processes", "µs", cpu / served * 1_000_000))
    return rows


def _counted(folder: Path) -> int:
    """Return the sum of all answers in the product's database, which must not be open anywhere."""
    uri = f"{(folder / DATABASE).as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        [answers] = connection.execute("SELECT coalesce(sum(answers), 0) FROM proxy_dailyusage").fetchone()
        return int(answers)
