"""The content of the image, and how Compose reads compose.yaml. No Docker daemon is needed."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from environ import Env

from tests.fake_gemini import FakeGemini
from tests.image import Image, build, files_below, is_let_in, rules_in
from tests.service import ROOT, Service

IN_THE_IMAGE = ["gunicorn.conf.py", "keymanager", "manage.py", "proxy", "templates"]
# What may lie in a checkout that somebody builds from; each holds PRIVATE.
NEVER = [
    ".env",
    ".env.local",
    ".git/config",
    ".venv/bin/python",
    "backup-1.sqlite3",
    "data/keymanager.sqlite3",
    "data/keymanager.sqlite3-wal",
    "data/secret_key",
    "db.sqlite3",
    "key.txt",
    "key_usage.txt",
    "keymanager/.env",
    "logs/keymanager.log",
    "proxy/__pycache__/relay.cpython-313.pyc",
    "proxy/key.txt",
    "requirements/key.txt",
    "templates/backup.sqlite3",
]
PRIVATE = "this is private"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with files that must stay out of the image."""
    folder = tmp_path_factory.mktemp("checkout") / "project"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "data", "logs", "key*.txt", "*.sqlite3*", "backup*.sqlite3")
    shutil.copytree(ROOT, folder, ignore=unwanted)
    shutil.copy(ROOT / ".dockerignore", folder)
    for name in NEVER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(PRIVATE)
    return folder


@pytest.fixture(scope="module")
def image(checkout: Path) -> Image:
    return build(checkout, checkout.parent)


def test_nothing_private_reaches_a_build(checkout: Path, image: Image) -> None:
    context = files_below(checkout.parent / "context")

    assert set(context).isdisjoint(NEVER)
    assert {name.partition("/")[0] for name in context} == {*IN_THE_IMAGE, "requirements"}
    assert [name for name in context if name.startswith("requirements/")] == ["requirements/postgres.txt"]


def test_the_image_holds_all_that_serving_needs_and_nothing_else(checkout: Path, image: Image) -> None:
    needed = [name for name in files_below(checkout) if name.partition("/")[0] in IN_THE_IMAGE and name not in NEVER]

    assert files_below(image.root) == [f"app/{name}" for name in needed]
    assert [name for name in files_below(image.root) if PRIVATE.encode() in (image.root / name).read_bytes()] == []


@pytest.mark.process
def test_the_service_runs_from_the_image_and_writes_nothing_into_it(
    image: Image, tmp_path: Path, gemini: FakeGemini
) -> None:
    before = files_below(image.root)
    check = shlex.split(image.instructions["HEALTHCHECK"].partition(" CMD ")[2])
    start = json.loads(image.instructions["CMD"])
    paths = ["/healthz", "/readyz", "/admin/login/", "/static/proxy/pages.css", "/static/admin/css/base.css"]
    with Service(tmp_path, gemini, PYTHONDONTWRITEBYTECODE="1", LOG_DIR="") as service:
        service.project = image.root / image.instructions["WORKDIR"].lstrip("/")
        check = [part.replace(":5000/", f":{service.port}/") for part in check]
        service.start(*start[2:]).wait_until_ready("/healthz")
        statuses = {path: requests.get(service.url + path, timeout=10).status_code for path in paths}
        healthy = subprocess.run([sys.executable, *check[1:]], check=False).returncode
        answer = service.ask()
    unhealthy = subprocess.run([sys.executable, *check[1:]], stderr=subprocess.DEVNULL, check=False).returncode

    assert start[:2] == ["python", "manage.py"]
    assert statuses == dict.fromkeys(paths, 200)
    assert answer.status_code == 200
    assert (healthy, unhealthy) == (0, 1)
    assert files_below(image.root) == before


@pytest.mark.parametrize(
    ("rules", "let_in"),
    [
        ("", ["a.py", "b/a.py", "b/c/a.txt"]),
        ("*", []),
        ("*\n!b", ["b/a.py", "b/c/a.txt"]),
        ("*\n!b/c/a.txt", ["b/c/a.txt"]),
        ("# a comment\n*.py", ["b/a.py", "b/c/a.txt"]),
        ("**/*.py\n/b/c/", []),
        ("b/?.py", ["a.py", "b/c/a.txt"]),
        ("!b\n*", []),
    ],
)
def test_rules_are_read_as_docker_reads_them(rules: str, let_in: list[str]) -> None:
    names = ["a.py", "b/a.py", "b/c/a.txt"]

    assert [name for name in names if is_let_in(name, rules_in(rules))] == let_in


def compose(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` with only these variables."""
    if subprocess.run(["sh", "-c", "docker compose version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    (folder / "empty.env").touch()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DOCKER_CONFIG")}
    command = ["docker", "compose", "--env-file", str(folder / "empty.env"), "-f", str(ROOT / "compose.yaml")]
    return subprocess.run(
        [*command, *arguments], env=kept | variables, capture_output=True, text=True, timeout=60, check=False
    )


def services(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_compose_serves_with_sqlite(tmp_path: Path) -> None:
    found = services(compose(tmp_path, "config", "--format", "json"))

    assert set(found) == {"keymanager"}
    assert found["keymanager"]["environment"]["DATABASE_URL"] == ""
    assert [port["published"] for port in found["keymanager"]["ports"]] == ["5000"]


def test_compose_serves_with_postgresql_in_the_profile(tmp_path: Path) -> None:
    arguments = ("--profile", "postgres", "config", "--format", "json")
    password = "p@ss/w:rd"

    found = services(compose(tmp_path, *arguments, POSTGRES_PASSWORD=password))

    assert set(found) == {"keymanager", "postgres"}
    keymanager, postgres = found["keymanager"]["environment"], found["postgres"]["environment"]
    database = Env.db_url_config(keymanager["DATABASE_URL"])
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["HOST"], database["USER"], database["NAME"]) == ("postgres", *[postgres["POSTGRES_USER"]] * 2)
    assert keymanager["PGPASSWORD"] == postgres["POSTGRES_PASSWORD"] == password
    assert found["keymanager"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "ports" not in found["postgres"]


@pytest.mark.parametrize("variables", [{}, {"POSTGRES_PASSWORD": ""}], ids=["missing", "empty"])
def test_compose_asks_for_a_password_in_the_profile(tmp_path: Path, variables: dict[str, str]) -> None:
    done = compose(tmp_path, "--profile", "postgres", "config", **variables)

    assert done.returncode != 0
    assert "Set POSTGRES_PASSWORD in .env" in done.stderr
