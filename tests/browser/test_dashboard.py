"""The pages of the dashboard, used in a browser, with a sample pool and one service for all tests of the module."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Browser, Locator, Page, StorageState, expect

from tests.browser.conftest import fits, open_page
from tests.conftest import FLASH
from tests.service import Service, eventually

TABS = ["Overview", "Keys", "Exhaustion", "Models", "Requests", "Health"]
PAGES = {
    "overview": "/dashboard/",
    "keys": "/dashboard/keys/",
    "key": "/dashboard/keys/1/",
    "exhaustion": "/dashboard/exhaustion/",
    "models": "/dashboard/models/",
    "requests": "/dashboard/requests/",
    "health": "/dashboard/health/",
}
ADMIN_PAGES = [
    "/admin/",
    "/admin/proxy/apikey/",
    "/admin/proxy/apikey/add/",
    "/admin/proxy/apikey/1/change/",
    "/admin/proxy/project/",
    "/admin/proxy/project/1/change/",
    "/admin/proxy/quota/",
    "/admin/proxy/dailyusage/",
    "/admin/proxy/exhaustionevent/",
]
CONTROLS = "a, button, select, input:not([type=hidden])"
# Where the keyboard is: among the tabs and filters ("" if elsewhere), whether an outline says so, and the HTML of it.
PLACE = f"""() => {{
    const element = document.activeElement, style = getComputedStyle(element);
    const all = [...document.querySelectorAll(":is(.tabs, .filters, .bulk) :is({CONTROLS})")];
    const isSeen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    const place = all.indexOf(element);
    const html = element.outerHTML.slice(0, 120);
    return [place < 0 ? "" : String(place), isSeen || !element.closest(".tabs, .pool"), html];
}}"""
IS_DRAWN = """(canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value, index) => index % 4 === 3 && value > 0);
}"""


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser, demo: Service, session: StorageState) -> Iterator[Page]:
    """A page, logged in; light and wide, unless a test chooses another look."""
    with open_page(browser, demo.url, getattr(request, "param", "light"), storage_state=session) as page:
        yield page


def asked(page: Page) -> dict[str, str]:
    """Return the query of the page's address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def section(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def tab(page: Page, name: str) -> Locator:
    return page.get_by_role("navigation", name="Dashboard").get_by_role("link", name=name, exact=True)


def test_filters_are_in_the_address_and_go_along_from_page_to_page(page: Page) -> None:
    page.goto("/dashboard/")
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "true")
    page.get_by_role("combobox", name="Model").select_option(FLASH)
    page.get_by_role("button", name="Apply").last.click()
    page.wait_for_url(re.compile("model="))
    assert asked(page) == {"range": "7d", "model": FLASH}
    expect(page.locator("#models tbody tr")).to_have_count(1)

    for name in [*TABS[1:], "Overview"]:
        tab(page, name).click()
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
        assert asked(page) == {"range": "7d", "model": FLASH}, name
        for choice in page.get_by_role("combobox", name="Model").all():  # the health page has none
            expect(choice).to_have_value(FLASH)

    page.locator(".narrowed", has_text=FLASH).click()
    assert asked(page) == {"range": "7d"}


def test_two_days_can_be_chosen_by_hand(page: Page) -> None:
    page.goto(f"/dashboard/?model={FLASH}")
    last = page.get_by_label("to", exact=True).input_value()
    page.get_by_label("from", exact=True).fill(last)
    page.get_by_role("button", name="Apply").first.click()

    assert asked(page) == {"range": "custom", "from": last, "to": last, "model": FLASH}
    expect(page.locator("#traffic tbody tr")).to_have_count(1)


def test_a_page_is_narrowed_to_a_project_or_a_key_and_widened_again(page: Page) -> None:
    page.goto("/dashboard/keys/?range=7d")
    link = page.locator("#keys tbody a[href*='project=']", has_not_text="unknown").first
    project = link.inner_text()
    link.click()
    expect(page.locator(".narrowed")).to_contain_text(project)
    tab(page, "Overview").click()
    assert asked(page).keys() == {"range", "project"}

    page.locator(".narrowed").click()
    assert asked(page) == {"range": "7d"}
    expect(page.locator(".narrowed")).to_have_count(0)

    page.goto("/dashboard/requests/?range=28d&key=3")
    label = re.split(r" \W", page.locator(".narrowed").inner_text())[0]
    keys_tried = page.locator("#requests tbody tr", has_text=label)
    expect(keys_tried).to_have_count(page.locator("#requests tbody tr").count())


def test_invalid_parameters_in_an_address_are_reported(page: Page) -> None:
    page.goto("/dashboard/?range=yesterday&project=999999")

    expect(page.get_by_role("alert")).to_have_text("There is no such range. There is no such project.")


def test_keys_are_sorted_searched_and_read_page_by_page(page: Page) -> None:
    page.goto("/dashboard/keys/")
    rows = page.locator("#keys tbody tr")
    expect(rows).to_have_count(50)
    for order, is_down in (("ascending", False), ("descending", True)):
        page.locator("#keys thead").get_by_role("link", name="Answers today").click()
        expect(page.get_by_role("columnheader", name="Answers today")).to_have_attribute("aria-sort", order)
        numbers = [int(text.replace(",", "")) for text in page.locator("#keys td:nth-child(4)").all_inner_texts()]
        assert numbers == sorted(numbers, reverse=is_down)

    names = set(page.locator("#keys tbody th").all_inner_texts())
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("page 2 of 3")).to_be_visible()
    assert not names & set(page.locator("#keys tbody th").all_inner_texts())
    assert asked(page)["sort"] == "-used"

    page.get_by_role("searchbox", name="Search").fill("translation-0")
    page.get_by_role("searchbox", name="Search").press("Enter")
    expect(page.get_by_text("page 1 of 1")).to_be_visible()
    assert all("translation-0" in text for text in rows.all_inner_texts())


def test_a_key_is_disabled_and_enabled_again(page: Page) -> None:
    page.goto("/dashboard/keys/?state=usable&sort=-used")
    found = page.locator("#keys tbody tr").filter(has_text="● usable").first  # rate-limited ones are usable, too
    label = found.locator("th").get_by_role("link").inner_text()
    page.goto(f"/dashboard/keys/?q={label.partition(' ')[0]}")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=label, exact=True))
    for action, state in (("Disable", "disabled"), ("Enable", "usable")):
        row.get_by_role("checkbox", name=f"Select {label}").check()
        page.get_by_label("Selected keys").last.select_option(label=action)
        page.get_by_role("group", name="Selected keys").get_by_role("button", name="Apply").click()
        expect(page.get_by_text(f"1 key {action.lower()}d.")).to_be_visible()
        expect(row).to_contain_text(state)

    row.get_by_role("link", name=label, exact=True).click()
    expect(page.get_by_role("heading", name=label, level=1)).to_be_visible()
    expect(tab(page, "Keys")).to_have_attribute("aria-current", "true")


def test_a_table_is_handed_out_as_csv_and_as_json(page: Page, tmp_path: Path) -> None:
    page.goto("/dashboard/?range=7d")
    shown = page.locator("#models tbody th").all_inner_texts()
    with page.expect_download() as download:
        section(page, "Models").get_by_role("link", name="CSV").click()
    download.value.save_as(tmp_path / "models.csv")
    assert download.value.suggested_filename == "overview-models.csv"
    with (tmp_path / "models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    address = str(section(page, "Models").get_by_role("link", name="JSON").get_attribute("href"))
    records = page.request.get(f"/dashboard/{address}").json()["models"]

    assert [row["model"] for row in rows] == [record["model"] for record in records] == shown
    assert [int(row["requests"]) for row in rows] == [record["requests"] for record in records]


def test_a_request_is_seen_as_it_arrives_unless_the_log_is_paused(page: Page, demo: Service) -> None:
    looks: list[str] = []
    page.on("request", lambda request: looks.append(request.url) if "after=" in request.url else None)
    page.clock.install()
    page.goto("/dashboard/requests/")
    new, status = page.locator("#requests tr.new"), page.locator(".live [role=status]")
    pause = page.get_by_role("button", name="Pause")
    expect(status).to_have_text("Live")

    assert demo.ask(headers={"x-goog-api-key": demo.token, "x-request-id": "watched-1"}).status_code == 200
    expect(new).to_have_count(1, timeout=15_000)
    expect(page.locator("#requests tbody tr").first).to_contain_text(FLASH)
    expect(status).to_have_text("Live, new requests: 1")

    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    expect(status).to_have_text("Paused")
    before = _logged(page)
    assert demo.ask().status_code == 200
    assert eventually(lambda: _logged(page) != before)
    looks.clear()
    page.clock.fast_forward(60_000)
    page.clock.fast_forward(60_000)
    assert not looks
    expect(new).to_have_count(1)

    pause.click()
    expect(new).to_have_count(2)
    expect(status).to_have_text("Live, new requests: 2")


def _logged(page: Page) -> Any:
    """Return the newest row of the log."""
    return page.request.get("/dashboard/requests/?format=json").json()["requests"][0]


def test_the_log_is_searched_and_read_page_by_page(page: Page) -> None:
    page.goto("/dashboard/requests/?range=28d")
    first = page.locator("#requests tbody tr").first.inner_text()
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#requests tbody tr")).to_have_count(50)
    assert first not in page.locator("#requests tbody tr").all_inner_texts()
    expect(page.locator(".live")).to_have_count(0)
    page.get_by_role("link", name="Newest").click()

    page.get_by_label("Outcome").select_option("3")
    page.get_by_role("search").get_by_role("button", name="Apply").click()
    page.wait_for_url(re.compile("outcome=3"))
    outcomes = set(page.locator("#requests tbody tr td:nth-child(2)").all_inner_texts())
    assert outcomes == {"▲ refused"}
    request_id = page.locator("#requests tbody tr td").last.inner_text()
    page.goto("/dashboard/requests/")
    page.get_by_label("Request ID").fill(request_id)
    page.get_by_label("Request ID").press("Enter")
    expect(page.locator("#requests tbody tr")).to_have_count(1)


def test_the_language_is_changed_and_changed_back_on_the_same_page(page: Page) -> None:
    page.goto(f"/dashboard/requests/?range=7d&model={FLASH}")
    html = page.locator("html")
    for button, lang in (("简体中文", "zh-hans"), ("English", "en")):
        page.get_by_role("button", name=button).click()
        expect(html).to_have_attribute("lang", re.compile(lang, re.IGNORECASE))
        assert asked(page) == {"range": "7d", "model": FLASH}


def test_every_page_has_the_same_data_without_javascript(
    browser: Browser, demo: Service, session: StorageState
) -> None:
    with open_page(browser, demo.url, storage_state=session, java_script_enabled=False) as page:
        for name, address in PAGES.items():
            page.goto(address)
            assert page.locator(".pool table tbody tr").count() > 0, f"no table on {name}"
            assert not page.locator(".live").is_visible()
        page.goto("/dashboard/")
        page.get_by_role("combobox", name="Model").select_option(FLASH)
        page.get_by_role("button", name="Apply").last.click()
        expect(page.locator("#models tbody tr")).to_have_count(1)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_used_with_the_keyboard(page: Page, name: str) -> None:
    page.goto(PAGES[name])
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
    wanted = page.locator(f":is(.tabs, .filters, .bulk) :is({CONTROLS}):visible").count()
    assert wanted >= len(TABS)

    reached: set[str] = set()
    for _ in range(100):
        page.keyboard.press("Tab")
        place, is_seen, html = page.evaluate(PLACE)
        assert is_seen, f"The keyboard focus is not visible at {html}"
        reached.add(place)
        if len(reached - {""}) == wanted:
            break
    else:
        pytest.fail(f"The keyboard reaches only {len(reached)} of {wanted} controls.")


# The dark theme differs in its colors only.
@pytest.mark.parametrize(
    ("page", "rules"), [("light", None), ("dark", {"runOnly": ["color-contrast"]})], indirect=["page"]
)
def test_every_page_is_accessible(page: Page, rules: dict[str, Any] | None) -> None:
    faults = []
    for name, address in PAGES.items():
        page.goto(address)
        for violation in Axe().run(page, options=rules).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                faults += [f"{name}: {violation['id']}: {node['html'][:200]}" for node in violation["nodes"][:3]]
    assert faults == []


@pytest.mark.parametrize("page", ["light", "phone"], indirect=True)
def test_every_page_is_as_wide_as_the_screen(page: Page) -> None:
    too_wide = []
    for address in [*PAGES.values(), *ADMIN_PAGES]:
        page.goto(address)
        if not fits(page):
            too_wide.append(address)
    assert too_wide == []


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
@pytest.mark.parametrize("name", ["overview", "models"])
def test_a_chart_is_drawn_and_said_in_words(page: Page, name: str) -> None:
    page.goto(PAGES[name] + "?range=28d")
    chart = page.get_by_role("img", name=re.compile("over time"))
    expect(chart).to_be_visible()

    assert chart.evaluate(IS_DRAWN)
    table = str(chart.get_attribute("aria-describedby")).removesuffix("-title")
    expect(page.locator(f"#{table} tbody tr")).to_have_count(28)


def test_pictures_without_a_canvas_are_said_in_words_too(page: Page) -> None:
    page.goto(PAGES["exhaustion"])
    lanes = page.locator(".lanes svg[role=img]")
    assert lanes.count() > 0
    assert all(lanes.evaluate_all("all => all.map((lane) => lane.getAttribute('aria-label'))"))
    page.goto(PAGES["key"])
    expect(page.locator("table.heat")).to_have_count(2)
    assert page.locator("table.heat td:not(:empty)").first.inner_text().strip()
