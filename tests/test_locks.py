"""The locks in requirements/: they match their sources and each other, and have a hash for every package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "run": "requirements.txt",
    "postgres": "requirements/postgres.in",
    "dev": "requirements/dev.in",
    "clients": "requirements/clients.in",
}


def packages(path: Path) -> dict[str, str]:
    """Return the versions that a requirements file pins, by name, with those of included files."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found |= packages(path.parent / line.removeprefix("-r "))
        elif pinned := re.match(r"([\w.-]+)(?:\[.*\])?==([^\s;]+)", line):
            found[re.sub(r"[-_.]+", "-", pinned[1]).lower()] = pinned[2]
    return found


def lock(name: str) -> Path:
    return ROOT / "requirements" / f"{name}.txt"


@pytest.mark.parametrize("name", SOURCES)
def test_a_lock_holds_what_its_source_names(name: str) -> None:
    source = packages(ROOT / SOURCES[name])

    assert source.items() <= packages(lock(name)).items(), "make locks"


@pytest.mark.parametrize("name", SOURCES)
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    entries = re.split(r"\n(?=[a-z])", lock(name).read_text(encoding="utf-8"))[1:]

    assert len(entries) == len(packages(lock(name)))
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_tests_run_with_the_versions_that_people_run() -> None:
    assert packages(lock("run")).items() <= packages(lock("postgres")).items() <= packages(lock("dev")).items()
