"""The image as a folder: the files that .dockerignore and the Dockerfile's COPY lines include, without RUN lines."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Rule(NamedTuple):
    """A line of .dockerignore: whether it includes files (!), and what it matches, folders with their content."""

    lets_in: bool
    pattern: re.Pattern[str]


class Image(NamedTuple):
    """The last stage: its files below `root`, and its other instructions, such as {"USER": "10001"}."""

    root: Path
    instructions: dict[str, str]


def rules_in(text: str) -> list[Rule]:
    """Return the rules of a .dockerignore. Raises ValueError for character classes and escapes: we use none."""
    lines = [line.strip() for line in text.splitlines()]
    return [_rule(line) for line in lines if line and not line.startswith("#")]


def is_let_in(name: str, rules: list[Rule]) -> bool:
    """Tell whether a file is part of the build context. The last matching rule applies."""
    matching = [rule.lets_in for rule in rules if rule.pattern.fullmatch(name)]
    return matching[-1] if matching else True


def build(checkout: Path, folder: Path) -> Image:
    """Copy files into `folder`, like `docker build`. Raise FileNotFoundError if a COPY matches nothing."""
    rules = rules_in((checkout / ".dockerignore").read_text(encoding="utf-8"))
    context = folder / "context"
    for name in files_below(checkout):
        if is_let_in(name, rules):
            _copy(checkout / name, context / name)
    stages: list[str] = []
    instructions: dict[str, str] = {}
    for word, rest in _instructions((checkout / "Dockerfile").read_text(encoding="utf-8")):
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "final"
            assert name not in stages
            stages.append(name)
            (folder / name).mkdir()
            instructions = {}
        elif word == "COPY":
            _copy_line(rest, folder, folder / stages[-1], PurePosixPath(instructions.get("WORKDIR", "/")))
        elif word == "ADD":
            raise ValueError("ADD is not understood here; use COPY.")
        else:
            instructions[word] = rest
    return Image(folder / stages[-1], instructions)


def files_below(folder: Path) -> list[str]:
    """Return the paths of all files in a folder, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _rule(line: str) -> Rule:
    lets_in = line.startswith("!")
    text = line.removeprefix("!").strip("/")
    if re.search(r"[\[\]\\]", text):
        raise ValueError(f"{line} is not understood here.")
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", text)
    return Rule(lets_in, re.compile("".join(wild.get(part, re.escape(part)) for part in parts) + "(?:/.*)?"))


def _instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, rest = line.split(maxsplit=1)
            yield word.upper(), rest.strip()


def _copy_line(rest: str, folder: Path, stage: Path, workdir: PurePosixPath) -> None:
    *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
    options = dict(word.removeprefix("--").split("=") for word in shlex.split(rest) if word.startswith("--"))
    origin = folder / options.get("from", "context")
    place = stage / (workdir / target).relative_to("/")
    for source in sources:
        found = origin / source.lstrip("/")
        if not found.exists() and "from" in options:
            continue  # what RUN made, such as the virtual environment
        _copy(found, place / found.name if target.endswith("/") else place)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
