"""How close the product comes to the possible number of answers: three minutes, with an upstream that enforces limits.

At first the product knows no limits. For the second phase, all limits are set. The pool stays the same, and so do the
requests in its minute windows. Exits with 1 if a target is missed.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

from bench.goodput_figures import FIRST_BYTE_SECONDS, Phase, figures_of
from bench.goodput_load import ask_all, plan
from bench.goodput_pool import projects
from bench.goodput_table import table
from bench.processes import ROOT, free_port, running, settings_for
from proxy.gemini.quota_day import next_reset
from tests.fake_gemini import FakeGemini

PHASE_SECONDS = 90.0
_LONGEST_RUN_SECONDS = 300
_PACIFIC = ZoneInfo("America/Los_Angeles")


def main() -> None:
    """Print the table. Exit with 0 if all targets are met, or else with 1."""
    _wait_if_midnight_is_near()
    text, is_good = table(*map(figures_of, run((1, 2))))
    print(text)
    sys.exit(not is_good)


def run(seeds: tuple[int, int]) -> list[Phase]:
    """Run a phase for each seed, one after the other with the same pool."""
    with TemporaryDirectory() as folder, _upstream() as gemini:
        port = free_port()
        env = settings_for(Path(folder), upstream_port=gemini.port, port=port)
        _change_pool("fill", env)
        with running([sys.executable, "manage.py", "serve"], port=port, log=Path(folder) / "output.log", env=env):
            unknown = _phase("limits unknown", seeds[0], gemini, port)
            _change_pool("set-limits", env)
            return [unknown, _phase("limits known", seeds[1], gemini, port)]


def _phase(name: str, seed: int, gemini: FakeGemini, port: int) -> Phase:
    requests = plan(PHASE_SECONDS, seed)
    print(f"{name}: {len(requests):,} requests in {PHASE_SECONDS:.0f} s", file=sys.stderr)
    past = list(gemini.decisions)
    outcomes = asyncio.run(ask_all(requests, port))
    return Phase(outcomes, past, gemini.decisions[len(past) :])


def _change_pool(how: str, env: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "bench.goodput_pool", how], cwd=ROOT, env=env, check=True)


def _wait_if_midnight_is_near() -> None:
    """Wait for Pacific midnight if it is near. Otherwise all daily quotas would reset in the middle of a phase."""
    now = datetime.now(UTC)
    seconds = (next_reset(now, _PACIFIC) - now).total_seconds()
    if seconds < _LONGEST_RUN_SECONDS:
        print(f"waiting {seconds:.0f} s for Pacific midnight", file=sys.stderr)
        time.sleep(seconds + 1)


@contextmanager
def _upstream() -> Iterator[FakeGemini]:
    """Run a fake Gemini API that knows the keys and enforces the limits of all projects."""
    with FakeGemini() as gemini:
        gemini.first_byte_seconds = FIRST_BYTE_SECONDS
        for project in projects():
            for secret in project.secrets:
                gemini.know(secret, project.name)
            for model, limit in project.limits.items():
                gemini.limit(project=project.name, model=model, **limit._asdict())
        yield gemini


if __name__ == "__main__":
    main()
