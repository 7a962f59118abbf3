"""The latency that the product adds: one connection, beside nginx in its place."""

from pathlib import Path
from tempfile import TemporaryDirectory

from bench import nginx
from bench.processes import free_port, product
from bench.table import Row
from bench.wrk import rounds


def latency() -> list[Row]:
    """Return the median time of an answer, and how much longer it is than nginx's."""
    upstream_port = free_port()
    ports = {"product": free_port(), "nginx": free_port()}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            nginx.static_upstream(folder, [upstream_port]),
            nginx.limit(folder, upstream_port=upstream_port, port=ports["nginx"]),
            product(folder / "product", upstream_port=upstream_port, port=ports["product"]),
        ):
            loads = rounds(ports, count=5, threads=1, connections=1, seconds=2)
    ours, reference = loads["product"].p50, loads["nginx"].p50
    return [
        Row("latency", "p50", "ms", ours, reference),
        Row("latency", "p50, added", "ms", ours - reference),
    ]
