"""A real browser with the real service. `test_dashboard.py` checks every page in light, dark and phone looks."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, StorageState, ViewportSize, expect, sync_playwright

from tests.fake_gemini import FakeGemini
from tests.service import Service

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
# Rows by table and columns, such as 'proxy_project ("id","name")'.
Tables = dict[str, Sequence[tuple[Any, ...]]]
_LOG_VIOLATIONS = """addEventListener("securitypolicyviolation",
    (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`))"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where there is no browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.process)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="There is no Chromium here: apt-get install chromium."))


@pytest.fixture(scope="session")
def upstream() -> Iterator[FakeGemini]:
    with FakeGemini() as gemini:
        yield gemini


@pytest.fixture(scope="session")
def shared(upstream: FakeGemini) -> Iterator[tuple[Service, Tables]]:
    """The service that the tests of this folder share, and its tables at the start. Starting one takes seconds."""
    with (
        TemporaryDirectory(prefix="keymanager-") as folder,
        Service(Path(folder), upstream, WEB_WORKERS="1") as service,
    ):
        service.start().wait_until_ready()
        # Without generated columns, which pragma_table_info leaves out.
        names = service.db.rows(
            """SELECT tables.name, group_concat('"' || columns.name || '"')
            FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
            WHERE tables.type = 'table' AND tables.name LIKE 'proxy_%' GROUP BY tables.name"""
        )
        tables = {f"{table} ({columns})": service.db.rows(f"SELECT {columns} FROM {table}") for table, columns in names}
        yield service, tables


@pytest.fixture
def gemini(upstream: FakeGemini) -> FakeGemini:
    upstream.reset()
    return upstream


@pytest.fixture
def service(shared: tuple[Service, Tables], gemini: FakeGemini) -> Service:
    """The shared service, with its tables as they were at the start."""
    service, tables = shared
    with service.db.connect() as connection:
        for name, rows in tables.items():
            connection.execute(f"DELETE FROM {name.partition(' ')[0]}")
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
    return service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module. Each test has a separate context.

    Not for longer: its event loop would keep later tests in this process from using the database.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def login(browser: Browser, shared: tuple[Service, Tables]) -> StorageState:
    """The cookies of a user who is logged in to the shared service."""
    return log_in(browser, shared[0])


@pytest.fixture
def page(browser: Browser, service: Service, login: StorageState) -> Iterator[Page]:
    """A page of the shared service, logged in. Any error in the browser fails the test."""
    with open_page(browser, service.url, storage_state=login) as page:
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
    return log_in(browser, demo)


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


def log_in(browser: Browser, service: Service) -> StorageState:
    """Log in as the admin that the first start created, and return the cookies."""
    password = re.search(r"password (\S+)", service.output)
    assert password
    with open_page(browser, service.url) as page:
        page.goto("/dashboard/")
        page.get_by_label("Username").fill("admin")
        page.get_by_label("Password").fill(password[1])
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible()
        return page.context.storage_state()


def fits(page: Page) -> bool:
    """Tell whether the page fits the width of the window. Tables may scroll inside."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
