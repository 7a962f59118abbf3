"""The admin and the dashboard in a browser."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import FLASH, fake_secret
from tests.fake_gemini import FakeGemini
from tests.service import Service, eventually

NEW, SECOND = fake_secret("pasted-one"), fake_secret("pasted-two")


def figure(page: Page, name: str) -> str:
    """Return the number that the dashboard shows for `name`."""
    value = page.locator(".figures div").filter(has=page.get_by_text(name, exact=True)).locator("dd").inner_text()
    return value.splitlines()[0].strip()  # its note stands below


def test_keys_are_pasted_used_disabled_revived_and_deleted(page: Page, service: Service, gemini: FakeGemini) -> None:
    page.goto("/admin/proxy/apikey/add/")
    page.get_by_label("API keys:").fill(f"# from the team\n{NEW}\n{SECOND}\n{NEW}\n")
    page.get_by_label("Google project:").fill("team")
    page.get_by_role("button", name="Add these 2 keys").click()
    expect(page.get_by_text("2 added, 0 known, 1 repeated, 0 malformed.")).to_be_visible()
    assert NEW not in page.content()

    row = page.get_by_role("row").filter(has_text=f"…{NEW[-4:]}").first
    expect(row).to_contain_text("usable")
    expect(row).to_contain_text("team, with 1 more")
    for action, state in [("Disable", "disabled"), ("Enable", "usable")]:
        row.get_by_role("checkbox").check()
        page.get_by_label("Action:").select_option(label=action)
        page.get_by_role("button", name="Go").click()
        expect(row).to_contain_text(state)

    page.get_by_role("link", name=f"…{SECOND[-4:]}").click()
    page.get_by_label("Name:").fill("the second")
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator("#result_list").get_by_role("link", name=f"the second …{SECOND[-4:]}").click()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name=re.compile("Yes, I.m sure")).click()
    expect(page.get_by_text("was deleted successfully")).to_be_visible()
    expect(page.locator("#result_list").get_by_role("link", name=f"…{SECOND[-4:]}")).to_have_count(0)


def test_lines_that_are_not_keys_are_reported_and_nothing_is_added(page: Page) -> None:
    page.goto("/admin/proxy/apikey/add/")
    page.get_by_label("API keys:").fill(f"{NEW}\nthis is a sentence\n")

    expect(page.get_by_text("1 would be added, 0 known, 1 malformed (line 2).")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="not a key")).to_contain_text("2")
    page.goto("/admin/proxy/apikey/")
    expect(page.get_by_text("5 API keys", exact=True)).to_be_visible()


def test_a_bad_key_is_found_by_a_check_and_said_in_words(page: Page, gemini: FakeGemini) -> None:
    gemini.know(fake_secret("service-key-1"))
    page.goto("/admin/proxy/apikey/")
    page.get_by_label("Toggle all").or_(page.locator("#action-toggle")).first.check()
    page.get_by_label("Action:").select_option(label="Check with Google (uses no quota)")
    page.get_by_role("button", name="Go").click()

    expect(page.get_by_text("Checked: 1 good, 4 bad, 0 unknown.")).to_be_visible()
    expect(page.get_by_text("invalid: API key not valid. Please pass a valid API key.")).to_have_count(4)
    page.goto("/dashboard/")
    assert (figure(page, "usable keys"), figure(page, "bad keys")) == ("1", "4")


def test_the_dashboard_shows_usage_and_exhaustion(page: Page, service: Service, gemini: FakeGemini) -> None:
    gemini.exhaust(fake_secret("service-key-1"), model=FLASH)
    for _ in range(6):
        assert service.ask().status_code == 200
    page.goto("/dashboard/")
    # A request is shown once its answer is complete, after the next write of the ledger.
    assert eventually(lambda: page.reload() and figure(page, "requests") == "6")

    figures = [figure(page, name) for name in ("requests", "usable keys", "rate-limited for some models")]
    assert figures == ["6", "5", "1"]
    exhausted = page.locator("section[aria-labelledby=exhausted-title]")
    expect(exhausted).to_contain_text(FLASH)
    expect(exhausted).to_contain_text("requests or tokens per day")
    assert not re.search(r"AIza[\w-]{30}", page.content())


@pytest.mark.parametrize("name", ["dailyusage", "exhaustionevent"])
def test_the_ledgers_are_read_and_not_written(page: Page, service: Service, gemini: FakeGemini, name: str) -> None:
    gemini.exhaust(fake_secret("service-key-1"), model=FLASH)
    assert {service.ask().status_code for _ in range(3)} == {200}

    page.goto(f"/admin/proxy/{name}/")
    row = page.locator("#result_list tbody tr").first
    expect(row).to_contain_text(FLASH)
    row.get_by_role("link").first.click()

    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    expect(page.get_by_role("link", name="Delete")).to_have_count(0)
    assert page.request.get(f"/admin/proxy/{name}/add/").status == 403
