"""Requests per second of nodes that share a PostgreSQL server, at several distances from it.

`make bench-nodes` runs it with a temporary server. Everything runs on this machine, so more nodes share its cores.
"""

import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psycopg

from bench import nginx
from bench.processes import DATABASE, free_port, running, sample_keys, settings_for
from bench.wrk import Load, load, together
from tests.cable import Cable
from tests.databases import SERVER, ServiceDatabase

CONNECTIONS, SECONDS, ROUNDS = 32, 4, 3
DELAYS_MS = (0, 1, 5)
KEYS = 20


def main() -> None:
    """Print a table. Progress goes to stderr."""
    if not SERVER:
        sys.exit("Run it with a PostgreSQL server: make bench-nodes")
    sqlite = _measure(None, 1, 0)
    print(f"{'database':<12}{'delay':>8}{'nodes':>7}{'1/s':>9}{'of SQLite':>11}{'of 1 node':>11}{'p50':>9}{'p99':>9}")
    times = f"{sqlite.p50:>6.1f} ms{sqlite.p99:>6.0f} ms"
    print(f"{'SQLite':<12}{'':>8}{1:>7}{sqlite.requests_per_second:>9,.0f}{'':>22}{times}", flush=True)
    for delay_ms in DELAYS_MS:
        one = None
        for count in (1, 3):
            database = ServiceDatabase(Path())
            database.create()
            figures = _measure(database, count, delay_ms)
            one = one or figures.requests_per_second
            per_second = figures.requests_per_second
            print(
                f"{'PostgreSQL':<12}{delay_ms:>5} ms{count:>7}{per_second:>9,.0f}"
                f"{per_second / sqlite.requests_per_second:>11.0%}{per_second / one:>9.2f} x"
                f"{figures.p50:>6.1f} ms{figures.p99:>6.0f} ms",
                flush=True,
            )


def _measure(database: ServiceDatabase | None, count: int, delay_ms: float) -> Load:
    """Load `count` nodes together, over the same number of connections in all. Return the median of the rounds."""
    keys = sample_keys(KEYS)
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        upstream = free_port()
        stack.enter_context(nginx.static_upstream(folder, [upstream]))
        ports = []
        for number in range(count):
            port, data = free_port(), folder / str(number)
            data.mkdir()
            (data / "key.txt").write_text(keys)
            env = settings_for(data, upstream_port=upstream, port=port) | {"WEB_WORKERS": "1", "SECRET_KEY": "x" * 50}
            if database:
                cable = stack.enter_context(Cable(database))
                cable.delay_seconds = delay_ms / 2000
                env["DATABASE_URL"] = cable.url
            command = [sys.executable, "manage.py", "serve"]
            stack.enter_context(running(command, port=port, log=data / "output.log", env=env))
            ports.append(port)
        _load(ports, 2)
        time.sleep(1)  # the nodes still write
        # As after some minutes of use: turns are leased only as far as Google has accepted so many requests before.
        with closing(psycopg.connect(database.url) if database else sqlite3.connect(folder / "0" / DATABASE)) as pool:
            pool.execute("UPDATE proxy_quota SET most_in_a_minute = 1000000")
            pool.commit()
        rounds = [_load(ports, SECONDS) for _ in range(ROUNDS)]
    print(database and database.name, count, delay_ms, rounds, file=sys.stderr)
    return together(rounds)


def _load(ports: list[int], seconds: int) -> Load:
    with ThreadPoolExecutor() as threads:
        loads = list(
            threads.map(
                lambda port: load(port, threads=1, connections=CONNECTIONS // len(ports), seconds=seconds), ports
            )
        )
    per_second, p50, p99, errors = zip(*loads, strict=True)
    return Load(sum(per_second), median(p50), max(p99), sum(errors))


if __name__ == "__main__":
    main()
