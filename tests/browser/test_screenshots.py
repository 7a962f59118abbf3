"""Screenshots of every page, with a sample pool, for the documentation.

They go to a temporary folder. To update those of the documentation, run in the project's folder:

    SCREENSHOTS=docs/screenshots python -m pytest tests/browser/test_screenshots.py

A machine without a Chinese font shows the language button as empty boxes: apt-get install fonts-wqy-microhei.
"""

import os
import re
from pathlib import Path

from playwright.sync_api import Browser, StorageState

from tests.browser.conftest import open_page
from tests.service import Service

LARGEST_BYTES = 250_000
PICTURES = [
    ("overview", "/dashboard/", "light"),
    ("overview-dark", "/dashboard/", "dark"),
    ("overview-phone", "/dashboard/", "phone"),
    ("keys", "/dashboard/keys/?sort=-used", "light"),
    ("key", "/dashboard/keys/1/", "light"),
    ("exhaustion", "/dashboard/exhaustion/", "light"),
    ("models", "/dashboard/models/?range=28d", "light"),
    ("requests", "/dashboard/requests/", "light"),
    ("health", "/dashboard/health/", "light"),
]


def test_every_page_has_its_picture_and_none_shows_a_key(
    browser: Browser, demo: Service, session: StorageState, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", "") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, address, look in PICTURES:
        with open_page(browser, demo.url, look, storage_state=session) as page:
            page.goto(address)
            assert not re.search(r"AIza[\w-]{20}", page.content())
            picture = page.screenshot(path=folder / f"{name}.png", animations="disabled")
            assert len(picture) < LARGEST_BYTES, name
