"""A real browser with the real service. `test_dashboard.py` checks every page in light, dark and phone looks."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, StorageState, ViewportSize, expect, sync_playwright

from tests.fake_gemini import FakeGemini
from tests.service import Service, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=20_000)  # other tests keep the machine busy meanwhile
LOOKS = ["light", "dark", "phone"]
_LOG_VIOLATIONS = """addEventListener("securitypolicyviolation",
    (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`))"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where there is no browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.process)
            if "demo" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group("demo"))  # one service for all of them
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="There is no Chromium here: apt-get install chromium."))


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(tmp_path, gemini) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module. Each test has a separate context.

    Not for longer: its event loop would keep later tests in this process from using the database.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """A page of the dashboard, logged in. Any error in the browser fails the test."""
    with open_page(browser, service.url) as page:
        log_in(page, service)
        yield page


@pytest.fixture(scope="session")
def demo() -> Iterator[Service]:
    """The service with a sample pool of 120 keys and its history, shared by all tests that use it."""
    with (
        TemporaryDirectory(prefix="keymanager-") as folder,
        FakeGemini() as gemini,
        Service(Path(folder), gemini, secrets=[], WEB_WORKERS="1") as service,
    ):
        service.manage("demo", "--keys=120", "--days=40", "--log-rows=2000")
        yield service.start().wait_until_ready()


@pytest.fixture(scope="module")
def session(browser: Browser, demo: Service) -> StorageState:
    """The cookies of a user who is logged in to `demo`."""
    with open_page(browser, demo.url) as page:
        log_in(page, demo)
        return page.context.storage_state()


@contextmanager
def open_page(browser: Browser, url: str, look: str = "light", **options: Any) -> Iterator[Page]:
    """Yield a page in a separate context. Any error in the browser fails the test.

    look: "light", "dark" or "phone". options: those of Playwright's `new_context`.
    """
    complaints: list[str] = []
    context = browser.new_context(
        viewport=ViewportSize(width=360, height=780) if look == "phone" else ViewportSize(width=1280, height=900),
        color_scheme="dark" if look == "dark" else "light",
        base_url=url,
        **options,
    )
    page = context.new_page()
    # The console shows an error for a script that the policy blocks, and for a file that is missing.
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.add_init_script(_LOG_VIOLATIONS)
    yield page
    context.close()
    assert complaints == []


def log_in(page: Page, service: Service) -> None:
    """Log in as the admin that the first start created, and open the overview."""
    password = re.search(r"password (\S+)", service.output)
    assert password
    page.goto("/dashboard/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(password[1])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible()


def fits(page: Page) -> bool:
    """Tell whether the page fits the width of the window. Tables may scroll inside."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
