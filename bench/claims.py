"""The time of a claim when nearly all keys are exhausted.

`python -m bench.claims KEYS PROJECTS EXHAUSTED` measures one pool; EXHAUSTED counts projects.
"""

import os
import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.processes import ENVIRONMENT, ROOT
from bench.table import Row

MODEL = "gemini-2.5-flash"
ROUNDS, CLAIMS = 3, 1_000


class Pool(NamedTuple):
    """A pool to measure: keys, evenly spread over projects, and how many of the projects are exhausted."""

    keys: int
    projects: int
    exhausted: int


SMALL = Pool(10, 10, 0)
LARGE = {
    "one key a project": Pool(10_000, 10_000, 9_990),
    "five keys a project": Pool(10_000, 2_000, 1_990),
}


def claims() -> list[Row]:
    """Return the time of a claim in us with 10,000 keys, nearly all of them exhausted. The reference has 10 keys."""
    times: dict[Pool, list[float]] = {pool: [] for pool in (SMALL, *LARGE.values())}
    for _ in range(ROUNDS):
        for pool, measured in times.items():
            measured.append(_in_a_process(pool))
    reference = statistics.median(times[SMALL])
    return [
        Row("claims", f"{name}, median", "us", statistics.median(times[pool]), reference)
        for name, pool in LARGE.items()
    ]


def _in_a_process(pool: Pool) -> float:
    with TemporaryDirectory() as folder:
        environment = {
            **ENVIRONMENT,
            "DATA_DIR": folder,
            "LOG_DIR": "",
            "DJANGO_SETTINGS_MODULE": "keymanager.settings",
        }
        environment["DATABASE_URL"] = f"sqlite:///{folder}/keymanager.sqlite3"
        command = [sys.executable, "-m", "bench.claims", *map(str, pool)]
        measured = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        print(f"{pool}: {measured.stdout.strip()} us", file=sys.stderr)
        return float(measured.stdout)


def measure(pool: Pool) -> float:
    """Return the median time of a claim in us, each in a separate transaction. The oldest keys are exhausted."""
    import django  # noqa: PLC0415  # only the child process is a Django

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415

    from proxy.ledger import ledger  # noqa: PLC0415
    from proxy.ledger.claims import ClaimRequest  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    _fill(pool)
    times = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        ledger.claim(ClaimRequest(MODEL, tokens=100))
        times.append(time.perf_counter() - began)
    ledger.close()
    return statistics.median(times) * 1e6


def _fill(pool: Pool) -> None:
    """Create keys and projects with known limits, and exhaust the first projects for the day."""
    from django.utils import timezone  # noqa: PLC0415

    from proxy.gemini.quota_day import next_reset  # noqa: PLC0415
    from proxy.gemini.refusals import Window  # noqa: PLC0415
    from proxy.models import ApiKey, ExhaustionEvent, GeminiModel, Project, Quota  # noqa: PLC0415

    moment = timezone.now()
    until = next_reset(moment, timezone.get_default_timezone())
    projects = Project.objects.bulk_create(Project(name=f"project {number}") for number in range(pool.projects))
    ApiKey.objects.bulk_create(
        ApiKey(secret=f"AIza{number:035}", project=projects[number * pool.projects // pool.keys])
        for number in range(pool.keys)
    )
    GeminiModel.objects.begin(MODEL)
    ExhaustionEvent.objects.bulk_create(
        ExhaustionEvent(key=key, project=key.project, model_name=MODEL, window=Window.DAY, since=moment, until=until)
        for key in ApiKey.objects.filter(project__in=projects[: pool.exhausted]).select_related("project")
    )
    Quota.objects.recompute([project.pk for project in projects], moment)
    # A known limit that is never reached: the scheduler does not have to probe.
    Quota.objects.filter(model_name=MODEL).set_limits(moment, requests_per_minute=CLAIMS)


if __name__ == "__main__":
    os.chdir(ROOT)
    print(f"{measure(Pool(*map(int, sys.argv[1:]))):.0f}")
