"""Run the named parts, or all of them, and print one table. Progress goes to stderr."""

import argparse
import shutil
import signal
import sys
from collections.abc import Callable

from bench.bursts import bursts
from bench.claims import claims
from bench.latency import latency
from bench.pages import pages
from bench.processes import raise_open_files
from bench.rps import rps
from bench.streams import streams
from bench.table import Row, table

PARTS: dict[str, Callable[[], list[Row]]] = {
    "rps": rps,
    "streams": streams,
    "bursts": bursts,
    "latency": latency,
    "claims": claims,
    "pages": pages,
}
LEGEND = """\
rps: 32 connections, static upstream. latency: one connection. Reference of both: nginx's proxy_pass in our place
with its default settings, which open a connection for each request. "kept": nginx with keep-alive to the upstream.
obvious: gunicorn gthread, requests, one ORM transaction per request (bench/obvious.py).
streams: ten events per second, for ten seconds each. Reference: the same load, sent directly to the upstream.
bursts: all requests at once, to a pool with unknown limits. Reference: the same, sent directly to the upstream.
claims: 10,000 keys in 10,000 or 2,000 projects, all but ten of them exhausted. Reference: 10 keys in 10 projects.
pages: 1,000 keys, 5 models, two years, a million requests in the log. Reference: the 300 ms that a page may take on the
server; for the relay (8 connections), its p99 while no page is loading.
Figures are medians of interleaved rounds. Errors are summed; for whole streams and maxima, the worst round counts."""


def main() -> None:
    """Exit with 0 after printing the table, or with 1 if a tool is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    chosen = parser.parse_args().parts or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    if missing := [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]:
        sys.exit(f"The benchmark needs {' and '.join(missing)}: apt-get install {' '.join(missing)}")
    # Like Ctrl-C, SIGTERM unwinds the stack, which stops every process that was started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    raise_open_files()
    rows = [row for part in chosen for row in PARTS[part]()]
    print(table(rows), LEGEND, sep="\n\n")


if __name__ == "__main__":
    main()
