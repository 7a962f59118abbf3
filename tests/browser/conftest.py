"""A real browser on the real service, in light and dark mode and as wide as a phone."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where there is no browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.process)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="There is no Chromium here: apt-get install chromium."))


@pytest.fixture
def service(tmp_path: Path, gemini: FakeGemini) -> Iterator[Service]:
    with running(tmp_path, gemini) as service:
        yield service


@pytest.fixture(params=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, service: Service) -> Iterator[Page]:
    """A page on the dashboard, logged in; whatever the browser complains of fails the test."""
    password = re.search(r"password (\S+)", service.output)
    assert password
    complaints: list[str] = []
    width = ViewportSize(width=360, height=780) if request.param == "phone" else ViewportSize(width=1280, height=900)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = browser.new_context(
            viewport=width, color_scheme="dark" if request.param == "dark" else "light", base_url=service.url
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/dashboard/")
        page.get_by_label("Username").fill("admin")
        page.get_by_label("Password").fill(password[1])
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Today", exact=True)).to_be_visible()
        yield page
        browser.close()
    assert complaints == []


def fits(page: Page) -> bool:
    """Tell whether the page needs no scrolling to the side; tables may scroll within themselves."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
