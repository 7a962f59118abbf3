"""Showing and setting limits in a browser."""

from playwright.sync_api import Page, expect

from tests import gemini_errors as errors
from tests.conftest import FLASH, fake_secret
from tests.fake_gemini import FakeGemini
from tests.service import Service

ONE = fake_secret("service-key-1")
PRO = "gemini-2.5-pro"


def test_limits_reported_by_google_are_shown_and_manual_limits_take_precedence(
    page: Page, service: Service, gemini: FakeGemini
) -> None:
    gemini.script(ONE, errors.quota_exceeded(FLASH, errors.Violation(errors.PER_DAY, 20), delay_seconds=30_000))
    assert {service.ask().status_code for _ in range(5)} == {200}

    page.goto("/admin/proxy/quota/")
    row = page.get_by_role("row").filter(has_text=f"…{ONE[-4:]}").filter(has_text=FLASH)
    expect(row).to_contain_text("20 per day")
    expect(row).to_contain_text("◐ exhausted until")
    row.locator("input[name$=requests_per_day]").fill("50")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_text("1 quota was changed successfully.")).to_be_visible()
    expect(row).to_contain_text("of 50")
    expect(row).to_contain_text("● available")


def test_a_limit_is_set_for_a_model_that_was_never_requested(page: Page, service: Service, gemini: FakeGemini) -> None:
    page.goto("/admin/proxy/apikey/")
    page.get_by_role("row").filter(has_text=f"…{ONE[-4:]}").get_by_role("link", name="unknown").click()
    page.locator("input[name=quotas-0-model_name]").fill(f"models/{PRO}")
    page.locator("input[name=quotas-0-requests_per_day]").fill("0")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.get_by_text("was changed successfully")).to_be_visible()
    answers = [service.ask(model=PRO) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {200}
    assert ONE not in gemini.secrets_seen


def test_a_project_that_google_names_joins_its_keys(page: Page, service: Service, gemini: FakeGemini) -> None:
    for number in (1, 2):
        gemini.script(fake_secret(f"service-key-{number}"), errors.suspended(fake_secret(f"service-key-{number}")))
    assert {service.ask().status_code for _ in range(5)} == {200}

    page.goto("/admin/proxy/apikey/?its_project=shared")
    expect(page.get_by_text("2 API keys", exact=True)).to_be_visible()
    page.locator("#result_list").get_by_role("link", name=f"…{ONE[-4:]}").click()
    expect(page.get_by_text(f"…{fake_secret('service-key-2')[-4:]}")).to_be_visible()
