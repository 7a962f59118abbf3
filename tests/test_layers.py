"""Which way imports flow, read from the source: an arrow that turns round fails here."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROXY = ROOT / "proxy"
# A package goes by its own name, its modules as "models/keys".
MODULES = {
    path.relative_to(PROXY).with_suffix("").as_posix().removesuffix("/__init__"): path for path in PROXY.rglob("*.py")
}
REPORTS = {name for name in MODULES if name.split("/")[0] == "reports"}
MODELS = {name for name in MODULES if name.split("/")[0] == "models"}
# What writes on the hot path, and what it stands on.
LEDGER = {
    *("ledger", "entries", "waiting", "claiming", "candidate", "claims", "posting", "windows", "clock"),
    *("history", "retention", "sums"),
}
CALLED_BY_NOBODY = {
    name for name in MODULES if name.split("/")[0] == "admin" or name.startswith("management/commands/")
}
# What these may use of ours; of Django nothing.
PURE: dict[str, set[str]] = {
    "paths": set(),
    "slices": set(),
    "gemini": {"paths", "slices"},
    "quota": set(),
    "unpacking": set(),
    "tokens": {"slices", "unpacking"},
    "masking": set(),
    "waiting": set(),
    "clock": set(),
    "client_address": set(),
    "candidate": {"clock"},
    "errorbody": set(),
    "refusals": {"errorbody", "quota"},
    "keyfile": {"keynames", "keyrecords"},
    "keyrecords": {"keynames", "masking"},
    "keynames": set(),
    "http1": {"gemini"},
    "headers": {"gemini", "masking"},
    "way_out": set(),
    "upstream": {"gemini", "headers", "http1", "masking", "sockets", "unpacking", "way_out"},
}
KNOWS_HTTP = {"django.http", "django.urls", "django.views", "django.shortcuts", "http", "requests", "urllib3"}


def imports_of(path: Path) -> set[str]:
    """Return the dotted names a module imports, also inside functions: `from a import b` gives "a" and "a.b".

    Without what only type checkers see: that never runs.
    """
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_imports_of(name: str) -> set[str]:
    """Return which of our own modules a module imports, as names in MODULES."""
    dotted = {
        imported.removeprefix("proxy.") for imported in imports_of(MODULES[name]) if imported.startswith("proxy.")
    }
    return {found for imported in dotted if (found := imported.replace(".", "/")) in MODULES}


def uses(name: str, package: str) -> bool:
    return any(imported == package or imported.startswith(f"{package}.") for imported in imports_of(MODULES[name]))


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_knows_nothing_of_django_and_of_the_rest_of_us(name: str) -> None:
    assert own_imports_of(name) <= PURE[name]
    assert not uses(name, "django")
    assert not uses(name, "keymanager")


@pytest.mark.parametrize("name", sorted(set(PURE) - {"upstream", "http1", "way_out", "clock", "slices"}))
def test_a_pure_module_does_nothing_but_reckon(name: str) -> None:
    assert not any(uses(name, package) for package in ("socket", "requests", "urllib3", "http", "os", "time"))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_models_know_nothing_of_http(name: str) -> None:
    assert own_imports_of(name) <= {"masking", "quota", "refusals", *MODELS}
    assert not any(uses(name, package) for package in KNOWS_HTTP)


def test_each_module_of_models_knows_those_before_it() -> None:
    order = [f"models/{name}" for name in ("projects", "exhaustion", "quotas", "keys", "usage", "history")]

    assert {"models", *order} == MODELS
    for number, name in enumerate(order):
        assert own_imports_of(name) & MODELS <= set(order[:number]), name


def test_the_relay_knows_both_sides_and_no_request() -> None:
    both_sides = {"answer", "claims", "gemini", "history", "journey", "ledger", "refusals", "tokens", "upstream"}

    assert own_imports_of("relay") <= both_sides
    assert own_imports_of("journey") <= both_sides - {"journey"}
    assert not any(uses(name, "django") for name in ("relay", "journey"))


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_reports_know_no_http_and_no_pages(name: str) -> None:
    assert not any(uses(name, package) for package in KNOWS_HTTP)
    assert not [found for found in own_imports_of(name) if found.split("/")[0] in ("pages", "views")]


@pytest.mark.parametrize("name", sorted(LEDGER | MODELS | REPORTS | {"pool"}))
def test_the_ledger_knows_no_upstream(name: str) -> None:
    assert not {"upstream", "relay", "journey", "views", "incoming", "errors"} & own_imports_of(name)


@pytest.mark.parametrize(
    "name", sorted(LEDGER | MODELS | {"usagefile", "keycheck", "pool", "reports", "relay", "journey"})
)
def test_what_commands_call_knows_nothing_of_requests_from_clients(name: str) -> None:
    seen, left = set(), {name}
    while left:
        seen |= left
        left = {found for module in left for found in own_imports_of(module)} - seen

    assert not {"views", "incoming", "errors", "middleware", "urls"} & seen


@pytest.mark.parametrize("name", sorted(set(MODULES) - CALLED_BY_NOBODY))
def test_nobody_imports_admin_or_commands(name: str) -> None:
    assert not CALLED_BY_NOBODY & own_imports_of(name)


def test_urllib3_is_imported_where_the_upstream_is_asked() -> None:
    """checks.py and way_out.py may take addresses apart; what talks is `upstream.py`, and requests for commands."""
    assert {name for name in MODULES if uses(name, "urllib3")} <= {"upstream", "checks", "way_out"}
    assert {name for name in imports_of(MODULES["checks"]) if name.startswith("urllib3.")} <= {
        *("urllib3.util", "urllib3.util.parse_url"),
        *("urllib3.exceptions", "urllib3.exceptions.LocationParseError"),
    }
    assert {name for name in MODULES if uses(name, "requests")} <= {"keycheck"}
    assert not [name for name in MODULES if uses(name, "http.client") or uses(name, "urllib.request.urlopen")]


def test_imports_never_run_in_a_circle() -> None:
    arrows = {name: own_imports_of(name) - {name} for name in MODULES}

    list(TopologicalSorter(arrows).static_order())  # CycleError names the circle


def test_settings_import_nothing_of_the_app() -> None:
    imported = imports_of(ROOT / "keymanager" / "settings.py")

    assert not any(name.split(".")[0] == "proxy" for name in imported)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_only_settings_read_the_environment(name: str) -> None:
    assert not re.search(r"\b(environ|getenv)\b", MODULES[name].read_text(encoding="utf-8"))
