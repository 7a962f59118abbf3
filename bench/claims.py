"""What a claim costs when nearly all keys are exhausted. `python -m bench.claims KEYS EXHAUSTED` measures one pool."""

import os
import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from bench.processes import ENVIRONMENT, ROOT
from bench.table import Row

MODEL = "gemini-2.5-flash"
ROUNDS, CLAIMS = 3, 1_000


def claims() -> list[Row]:
    """Return the us of a claim with 10,000 keys, 9,990 of them exhausted; the reference has 10 keys."""
    large, small = [], []
    for _ in range(ROUNDS):
        large.append(_in_a_process(10_000, 9_990))
        small.append(_in_a_process(10, 0))
    return [Row("claims", "one claim, median", "us", statistics.median(large), statistics.median(small))]


def _in_a_process(keys: int, exhausted: int) -> float:
    with TemporaryDirectory() as folder:
        environment = {
            **ENVIRONMENT,
            "DATA_DIR": folder,
            "LOG_DIR": "",
            "DJANGO_SETTINGS_MODULE": "keymanager.settings",
        }
        environment["DATABASE_URL"] = f"sqlite:///{folder}/keymanager.sqlite3"
        command = [sys.executable, "-m", "bench.claims", str(keys), str(exhausted)]
        measured = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        print(f"{keys} keys, {exhausted} exhausted: {measured.stdout.strip()} us", file=sys.stderr)
        return float(measured.stdout)


def measure(keys: int, exhausted: int) -> float:
    """Return the median time of a claim in us, each in a transaction of its own, the first (oldest) keys exhausted."""
    import django  # noqa: PLC0415  # only the child process is a Django

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    from proxy.ledger import ledger  # noqa: PLC0415
    from proxy.models import ApiKey, ExhaustionEvent, Place  # noqa: PLC0415
    from proxy.pool import add_keys  # noqa: PLC0415
    from proxy.quota import next_reset  # noqa: PLC0415
    from proxy.refusals import Window  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    moment = timezone.now()
    add_keys((f"AIza{number:035}" for number in range(keys)), moment)
    until = next_reset(moment, timezone.get_default_timezone())
    ExhaustionEvent.objects.bulk_create(
        ExhaustionEvent(key=key, model_name=MODEL, window=Window.DAY, since=moment, until=until)
        for key in ApiKey.objects.order_by("id")[:exhausted]
    )
    Place.objects.add_lane(MODEL)
    Place.objects.rebuild(ApiKey.objects.all(), moment)
    times = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        next(ledger.claims(MODEL))
        times.append(time.perf_counter() - began)
    ledger.close()
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    os.chdir(ROOT)
    print(f"{measure(int(sys.argv[1]), int(sys.argv[2])):.0f}")
