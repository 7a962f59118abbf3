"""The service as real processes: `manage.py serve` or runserver, with its files in a temporary folder."""

import http.client
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from subprocess import STDOUT, CompletedProcess, Popen, run
from typing import Any, NamedTuple, Self

import requests

from tests.conftest import FLASH, TOKEN, fake_secret
from tests.databases import ServiceDatabase
from tests.fake_gemini import FakeGemini
from tests.started import COVERAGE

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 30.0
SECRETS = [fake_secret(f"service-key-{number}") for number in range(1, 6)]


class Usage(NamedTuple):
    """A row of DailyUsage."""

    answers: int
    errors: int
    refusals: int
    prompt_tokens: int
    output_tokens: int
    thinking_tokens: int


def eventually(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> bool:
    """Poll until `condition` is true, a hundred times a second. Tell whether it is in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    """Return a free port outside the range of ports for outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)  # the seed is the same in all of xdist's processes
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Service:
    """One deployment: a folder with key file, data and logs, a port and settings, which can be started and stopped.

    As a context manager, it leaves nothing running.
    """

    # The folder of manage.py.
    project = ROOT

    def __init__(
        self,
        folder: Path,
        upstream: FakeGemini | str,
        *,
        secrets: Sequence[str] = SECRETS,
        token: str = TOKEN,
        # How many files the system lets a process open.
        open_files: int | None = None,
        # It begins with all tables, which saves seconds, or without a database.
        is_migrated: bool = True,
        # That of another node.
        database: ServiceDatabase | None = None,
        # More of the environment.
        **variables: str,
    ) -> None:
        self.folder = folder
        self.db = database or ServiceDatabase(folder / "data" / "keymanager.sqlite3")
        if database is None:
            self.db.create(is_migrated=is_migrated)
        self.port = free_port()
        self.token = token
        self.open_files = open_files
        self.starts = 0
        self.process: Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key.txt").write_text("".join(f"{secret}\n" for secret in secrets))
        (folder / "key.txt").chmod(0o600)
        # Nothing else comes along, and what is set here wins over a developer's .env.
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            **COVERAGE,
            "PYTHONUNBUFFERED": "1",
            "BIND": f"127.0.0.1:{self.port}",
            "DATA_DIR": str(folder / "data"),
            "DATABASE_URL": self.db.url,
            "DEBUG": "off",
            "GRACEFUL_SECONDS": "15",
            "KEY_FILE": str(folder / "key.txt"),
            "LOG_DIR": str(folder / "logs"),
            "LOG_LEVEL": "INFO",
            "PLACEHOLDER_TOKEN": token,
            "UPSTREAM_URL": upstream if isinstance(upstream, str) else upstream.url,
            "WEB_WORKERS": "2",
            **variables,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """The file of the database, on SQLite."""
        return self.db.file

    @property
    def output(self) -> str:
        """The output of the processes since the last start."""
        return (self.folder / f"output-{self.starts}.txt").read_text(errors="replace")

    @property
    def logs(self) -> str:
        """Everything in LOG_DIR."""
        return "".join(path.read_text(errors="replace") for path in sorted((self.folder / "logs").glob("*.log*")))

    def manage(self, *arguments: str) -> str:
        """Run a manage.py command and return its output."""
        done = self.run("manage.py", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def mistake(self, *arguments: str) -> str:
        """Run a manage.py command that fails, and return its error message."""
        done = self.run("manage.py", *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
        assert done.stderr.startswith("CommandError: ")
        assert done.stderr.count("\n") == 1
        return done.stderr.removeprefix("CommandError: ").strip()

    def run(self, *arguments: str) -> CompletedProcess[str]:
        """Run Python with these arguments in the service's environment, and wait until it exits."""
        command = [sys.executable, *arguments]
        return run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, *arguments: str) -> Self:
        """Start `manage.py` with these arguments (none: `serve`) in a separate process group, and return at once.

        `gunicorn` starts that, without `manage.py`.
        """
        assert self.process is None
        self.starts += 1
        with (self.folder / f"output-{self.starts}.txt").open("wb") as output:
            program = ["-m"] if arguments == ("gunicorn",) else ["manage.py"]
            command = [sys.executable, *program, *(arguments or ("serve",))]
            if self.open_files:
                command = ["prlimit", f"--nofile={self.open_files}:{self.open_files}", *command]
            self.process = Popen(
                command, cwd=self.project, env=self.environment, stdout=output, stderr=STDOUT, start_new_session=True
            )
        return self

    def is_answering(self, path: str = "/readyz", status: int = 200) -> bool:
        with suppress(OSError):
            return requests.get(self.url + path, timeout=5).status_code == status
        return False

    def wait_until_ready(self, path: str = "/readyz") -> Self:
        """Wait until `path` answers 200."""
        process = self.process
        assert process is not None
        is_ready = eventually(lambda: process.poll() is not None or self.is_answering(path)) and process.poll() is None
        assert is_ready, f"The service is not ready; it printed:\n{self.output}"
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def members(self) -> list[int]:
        """The process IDs of all running processes in the service's process group."""
        return [pid for pid, (state, _, group) in _processes() if group == self.pid and state != "Z"]

    @property
    def workers(self) -> list[int]:
        """The process IDs of gunicorn's workers."""
        return [pid for pid, (state, parent, _) in _processes() if parent == self.pid and state != "Z"]

    def cpu_seconds(self) -> float:
        """Return the CPU time that all processes have used so far."""
        stats = [(Path(f"/proc/{pid}/stat")).read_text().rpartition(")")[2].split() for pid in self.members]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    @property
    def is_listening(self) -> bool:
        with suppress(OSError), self.connect():
            return True
        return False

    def press_ctrl_c(self) -> None:
        """Interrupt every process of the group, as a terminal does on Ctrl-C."""
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM to the main process, as systemd and Docker do first."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until the service exits, and return its exit code. Raise TimeoutExpired if it takes too long."""
        assert self.process is not None
        return self.process.wait(seconds)

    def kill_one(self, pid: int) -> None:
        """Kill one process of the service, as the kernel does if memory runs out."""
        assert pid in self.members
        os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill every process at once, as a power cut would. The service can be started again."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """Terminate, wait, and return the exit code. The service can be started again."""
        self.terminate()
        code = self.wait()
        self.kill()
        return code

    def usage(self) -> dict[tuple[str, str], Usage]:
        """Return the usage in the database by secret and model name, over all days."""
        columns = ", ".join(f"SUM({name})" for name in Usage._fields)
        question = (
            f"SELECT key.secret, model_name, {columns} FROM proxy_dailyusage usage "
            "JOIN proxy_apikey key ON key.id = usage.key_id GROUP BY key.secret, model_name"
        )
        # SUM of bigint is a Decimal on PostgreSQL.
        return {(secret, model): Usage(*map(int, numbers)) for secret, model, *numbers in self.db.rows(question)}

    def answers(self, model: str = "") -> dict[tuple[str, str], int]:
        """Return the number of answers in the database by secret and model name, of all models or of one."""
        rows = self.usage().items()
        return {row: usage.answers for row, usage in rows if usage.answers and model in ("", row[1])}

    def ask(
        self, text: str = "Hello", *, model: str = FLASH, action: str = "generateContent", **more: Any
    ) -> requests.Response:
        """Post a small request. Return the complete response, with the connection closed."""
        usual: dict[str, Any] = {"headers": {"x-goog-api-key": self.token}, "json": _question(text), "timeout": 30}
        with requests.post(f"{self.url}/v1beta/models/{model}:{action}", **(usual | more)) as answer:
            return answer

    def execute(self, statement: str) -> None:
        """Change the database, as another process would."""
        with self.db.connect() as connection:
            connection.execute(statement)

    @contextmanager
    def stream(self, text: str = "Hello", *, model: str = FLASH) -> Iterator[http.client.HTTPResponse]:
        """Request SSE, and yield the response as soon as its head has arrived. Close the connection at the end."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(
                "POST",
                f"/v1beta/models/{model}:streamGenerateContent?alt=sse",
                json.dumps(_question(text)),
                {"x-goog-api-key": self.token, "Content-Type": "application/json"},
            )
            with connection.getresponse() as response:
                yield response

    def connect(self) -> socket.socket:
        """Return a raw connection, for data that no HTTP client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def head(self, *lines: str, action: str = "generateContent") -> bytes:
        """Return the head of a POST as bytes, with the token and these header lines."""
        first = [f"POST /v1beta/models/{FLASH}:{action} HTTP/1.1", "Host: localhost", f"x-goog-api-key: {self.token}"]
        return "\r\n".join([*first, *lines, "", ""]).encode()


@contextmanager
def running(
    folder: Path,
    upstream: FakeGemini | str,
    *,
    secrets: Sequence[str] = SECRETS,
    token: str = TOKEN,
    **options: Any,
) -> Iterator[Service]:
    """Serve like `make run`. Yield the service once it is ready, and leave nothing running.

    options: those of `Service`.
    """
    with Service(folder, upstream, secrets=secrets, token=token, **options) as service:
        yield service.start().wait_until_ready()


def read_event(response: http.client.HTTPResponse) -> bytes:
    """Return the next event of an SSE stream, b"" at its end."""
    event = response.readline()
    while event and not event.endswith((b"\n\n", b"\n\r\n")):
        line = response.readline()
        assert line, f"The stream ended in the middle of an event: {event!r}"
        event += line
    return event


def text_in(stream: bytes) -> str:
    """Return the text of all events of a native SSE stream."""
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: ")]
    return "".join(part["text"] for event in events for part in event["candidates"][0]["content"]["parts"])


def connections_of(pid: int, port: int) -> int:
    """Return how many connections to local port `port` the process has accepted and still holds."""
    held = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "01" and int(local.rpartition(":")[2], 16) == port:
            held.add(f"socket:[{rest[5]}]")
    opened = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            opened += str(descriptor.readlink()) in held
    return opened


def _question(text: str) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": text}]}]}


def _processes() -> Iterator[tuple[int, tuple[str, int, int]]]:
    """Yield the ID, state, parent and group of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                state, parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                yield int(folder.name), (state, int(parent), int(group))
