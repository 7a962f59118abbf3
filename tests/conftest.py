"""What tests stand on: a pool in a real database file, a fake Gemini as a real HTTP server, the service in front."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone

from proxy import views
from proxy.ledger import Ledger, ledger
from proxy.models import ApiKey
from proxy.pool import add_keys
from proxy.upstream import Upstream
from tests.fake_gemini import FakeGemini

TOKEN = "PLACEHOLDER_GEMINI_TOKEN"
FLASH = "gemini-2.5-flash"

Pool = Callable[..., list[ApiKey]]


def fake_secret(name: str) -> str:
    """Return a key of Google's shape that says its name at the end: AIza, then 35 characters."""
    return "AIza" + f"{name:0>35}"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """Put the test database into a file: claims about locks and threads mean nothing in memory."""
    from django.conf import settings  # noqa: PLC0415  # after pytest-django has set it up

    path: Path = tmp_path_factory.mktemp("database") / f"{worker_id}.sqlite3"
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(path)


@pytest.fixture
def gemini() -> Iterator[FakeGemini]:
    with FakeGemini() as server:
        yield server


@pytest.fixture
def service(transactional_db: None, gemini: FakeGemini, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The relay's parts, in this process: the fake as upstream, and the ledger with an empty queue."""
    monkeypatch.setattr(views, "upstream", Upstream(gemini.url, connect_seconds=2, read_seconds=2))
    monkeypatch.setattr("proxy.relay.PAUSES", (0.001, 0.001))
    yield ledger
    ledger.close()


@pytest.fixture
def pool(service: Ledger) -> Pool:
    """Add keys to the pool: `pool("one", "two", project="p1")` makes secrets that end in these names."""

    def add(*names: str, project: str = "") -> list[ApiKey]:
        secrets = [fake_secret(name) for name in names]
        add_keys(secrets, timezone.now(), project=project)
        return list(ApiKey.objects.filter(secret__in=secrets).order_by("id"))

    return add


@pytest.fixture
def client() -> Client:
    """A client that shows the token."""
    return Client(headers={"x-goog-api-key": TOKEN})
