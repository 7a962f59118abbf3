"""One running service for all tests of a file, since starting one takes seconds."""

from collections.abc import Iterator

import pytest

from tests.fake_gemini import FakeGemini
from tests.service import Service, running


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeGemini]:
    with FakeGemini() as server:
        yield server


@pytest.fixture(scope="module")
def running_service(tmp_path_factory: pytest.TempPathFactory, fake: FakeGemini) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("shared"), fake) as service:
        yield service


@pytest.fixture
def gemini(fake: FakeGemini) -> FakeGemini:
    fake.reset()
    return fake


@pytest.fixture
def service(running_service: Service, gemini: FakeGemini) -> Service:
    """A service that all tests of this file share. They must not change its keys."""
    return running_service
