"""Starts the servers to compare, waits until they are ready, reads their memory and CPU time, and stops them."""

import os
import random
import resource
import signal
import socket
import string
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import STDOUT, Popen, TimeoutExpired
from time import monotonic, sleep

DATABASE = "keymanager.sqlite3"
ROOT = Path(__file__).resolve().parents[1]
DEADLINE_SECONDS = 60
# Only these variables: settings from the user's shell would change what is measured.
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONUNBUFFERED": "1"}


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard limit, for this process and its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """Return a free port on the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: list[str],
    *,
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Start `command` in the project's folder; yield its process id once it answers GET /readyz with 200.

    Stop it with SIGTERM, or with SIGKILL a minute later. Its output goes to `log`. Raise RuntimeError if it is never
    ready, or exits by itself.
    """
    with log.open("wb") as output:
        # A separate session: Ctrl-C reaches only us, and the whole process group can be killed.
        process = Popen(
            command, cwd=ROOT, env={**ENVIRONMENT, **(env or {})}, stdout=output, stderr=STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_ready(process, port, log)
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} exited with {process.returncode} during the benchmark.")
    finally:
        process.terminate()
        with suppress(TimeoutExpired):
            process.wait(DEADLINE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def settings_for(folder: Path, *, upstream_port: int, port: int) -> dict[str, str]:
    """Return the environment of the product: two workers, with data and key.txt (if any) in `folder`."""
    return {
        **ENVIRONMENT,
        "DJANGO_SETTINGS_MODULE": "keymanager.settings",
        "UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}",
        "DATA_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / DATABASE}",
        "LOG_DIR": "",
        "BIND": f"127.0.0.1:{port}",
        "WEB_WORKERS": "2",
        "KEY_FILE": str(folder / "key.txt"),
    }


def sample_keys(count: int) -> str:
    """Return a key file with `count` random keys."""
    letters = string.ascii_letters + string.digits + "_-"
    return "".join("AIza" + "".join(random.choices(letters, k=35)) + "\n" for _ in range(count))


@contextmanager
def product(folder: Path, *, upstream_port: int, port: int, keys: int = 20) -> Iterator[int]:
    """Run the product with `keys` sample keys and its data in `folder`. Yield the process ID of its master."""
    folder.mkdir()
    (folder / "key.txt").write_text(sample_keys(keys))
    env = settings_for(folder, upstream_port=upstream_port, port=port)
    command = [sys.executable, "manage.py", "serve"]
    with running(command, port=port, log=folder / "output.log", env=env) as master:
        yield master


def children(master: int) -> list[int]:
    """Return the process IDs of the direct children of `master`."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if (stat := _stat(pid)) and int(stat[1]) == master]


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds (user and system) that `pids` have used since they started."""
    ticks = sum(int(stat[11]) + int(stat[12]) for pid in pids if (stat := _stat(pid)))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: list[int]) -> tuple[float, float]:
    """Return the memory of `pids` in MB: RSS and PSS. PSS divides shared memory between the processes."""
    rss = sum(_kilobytes(pid, "status", "VmRSS:") for pid in pids)
    return rss / 1024, sum(_kilobytes(pid, "smaps_rollup", "Pss:") for pid in pids) / 1024


def _wait_until_ready(process: Popen[bytes], port: int, log: Path) -> None:
    deadline = monotonic() + DEADLINE_SECONDS
    url = f"http://127.0.0.1:{port}/readyz"
    while monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        sleep(0.05)
    last_words = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} did not become ready on port {port}; it printed:\n{last_words}")


def _stat(pid: int) -> list[str]:
    """Return /proc/PID/stat from the third field (state) on, or nothing if the process is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _kilobytes(pid: int, file: str, label: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(label):
                return int(line.split()[1])
    return 0
