"""Times of the dashboard's pages with a very large pool, and how much loading them slows the relay.

`python -m bench.pages` fills the database of its environment if it is empty, and prints the time of each page in ms.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import requests

from bench import nginx
from bench.processes import ROOT, free_port, running, settings_for
from bench.table import Row
from bench.wrk import Load, load

if TYPE_CHECKING:
    from django.test import Client

KEYS, DAYS, LOG_ROWS = 1_000, 730, 1_000_000
FACTOR = 10  # a multiple of the free tier's limits, so that every key is used every day
BOUND_MS, LOADS, ROUNDS = 300, 15, 3
PEOPLE = "/dashboard/?range=28d"
PATHS = [
    "/dashboard/",
    PEOPLE,
    "/dashboard/?range=90d",
    "/dashboard/?range=custom&from={first}&to={last}",
    "/dashboard/keys/",
    "/dashboard/keys/{key}/",
    "/dashboard/exhaustion/?day={yesterday}",
    "/dashboard/models/?range=90d",
    "/dashboard/models/?range=custom&from={first}&to={last}",
    "/dashboard/requests/",
    "/dashboard/requests/?outcome=4",
    "/dashboard/health/",
]
NAME, PASSWORD = "bench", "only for a moment"


def pages() -> list[Row]:
    """Return the median time of each page on the server in ms, and the relay's p99 while a page loads repeatedly."""
    upstream_port, port = free_port(), free_port()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = settings_for(folder, upstream_port=upstream_port, port=port)
        command = [sys.executable, "-m", "bench.pages"]
        output = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
        times: dict[str, float] = json.loads(output)
        serve = [sys.executable, "manage.py", "serve"]
        with (
            nginx.static_upstream(folder, [upstream_port]),
            running(serve, port=port, log=folder / "output.log", env=env),
        ):
            alone, meanwhile = _relay(port)
    return [
        *(Row("pages", path, "ms", measured, BOUND_MS) for path, measured in times.items()),
        Row("pages", "relay p99 while pages load", "ms", meanwhile, alone),
    ]


def _relay(port: int) -> tuple[float, float]:
    """Return the relay's p99 in ms, without and with a page loading repeatedly."""
    alone: list[Load] = []
    meanwhile: list[Load] = []
    load(port, threads=1, connections=8, seconds=1)
    for number in range(1, ROUNDS + 1):
        alone.append(load(port, threads=1, connections=8, seconds=5))
        with _page_loads(port) as loaded:
            meanwhile.append(load(port, threads=1, connections=8, seconds=5))
        print(f"round {number}: {alone[-1]}, with {len(loaded)} pages {meanwhile[-1]}", file=sys.stderr)
    return statistics.median(each.p99 for each in alone), statistics.median(each.p99 for each in meanwhile)


@contextmanager
def _page_loads(port: int) -> Iterator[list[float]]:
    """Log in, and load a page repeatedly until the end. Yield the list of load times in seconds."""
    address = f"http://127.0.0.1:{port}"
    session = requests.Session()
    form = session.get(f"{address}/admin/login/", timeout=60).text
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[:1]
    fields = {"username": NAME, "password": PASSWORD, "csrfmiddlewaretoken": token, "next": PEOPLE}
    session.post(f"{address}/admin/login/", data=fields, timeout=60).raise_for_status()
    loaded: list[float] = []
    is_over = threading.Event()

    def load_pages() -> None:
        while not is_over.is_set():
            answer = session.get(address + PEOPLE, timeout=60, allow_redirects=False)
            if answer.status_code != 200:
                raise RuntimeError(f"{PEOPLE} answered {answer.status_code}. Did the login fail?")
            loaded.append(answer.elapsed.total_seconds())

    thread = threading.Thread(target=load_pages)
    thread.start()
    try:
        yield loaded
    finally:
        is_over.set()
        thread.join()
    if not loaded:
        raise RuntimeError("No page was loaded.")


def measure() -> dict[str, float]:
    """Return the median time of each page in ms, with a logged-in user. Fill the database first if it is empty."""
    import django  # noqa: PLC0415  # only the child process is a Django

    django.setup()
    from django.contrib.auth.models import User  # noqa: PLC0415
    from django.core.management import call_command  # noqa: PLC0415
    from django.test import Client  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    from proxy.dashboard.reports import today  # noqa: PLC0415
    from proxy.models import ApiKey  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    _fill()
    client = Client()
    client.force_login(User.objects.get(username=NAME))
    key = ApiKey.objects.usable().order_by("id")[100:101].get().pk
    last = today(timezone.now())
    words = {"first": last - timedelta(days=DAYS - 1), "last": last, "yesterday": last - timedelta(days=1), "key": key}
    return {path: _median(client, path.format(**words)) for path in PATHS}


def _median(client: "Client", path: str) -> float:
    times = []
    for _ in range(LOADS + 1):
        began = time.perf_counter()
        answer = client.get(path)
        times.append((time.perf_counter() - began) * 1e3)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}.")
    print(f"{path}: {' '.join(f'{each:.0f}' for each in times)} ms", file=sys.stderr)
    return statistics.median(times[1:])  # the first one loads templates


def _fill() -> None:
    """Create the pool and its history, with limits that the relay's load does not reach."""
    from django.contrib.auth.models import User  # noqa: PLC0415
    from django.db import connection  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    from proxy.demo import Plan, fill, is_empty  # noqa: PLC0415
    from proxy.models import Quota  # noqa: PLC0415

    if not is_empty():
        return
    began, moment = time.perf_counter(), timezone.now()
    User.objects.create_superuser(NAME, password=PASSWORD)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA cache_size=-1500000")  # otherwise each row of a day reads and writes an index page
        cursor.execute("PRAGMA synchronous=OFF")
    made = fill(Plan(KEYS, DAYS, LOG_ROWS, FACTOR, late=0), moment, seed=1)
    Quota.objects.of_models().update(requests_per_minute=10**6, input_tokens_per_minute=10**9, requests_per_day=10**6)
    Quota.objects.recompute(Quota.objects.values_list("project", flat=True), moment)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()  # the next connection has the product's settings
    print(f"{made}: filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    os.chdir(ROOT)
    print(json.dumps(measure()))
