"""Adding many keys: the first click on the button shows a preview, the second adds the keys."""

from playwright.sync_api import Page, expect

from tests.conftest import fake_secret

NEW, SECOND, KNOWN = fake_secret("pasted-one"), fake_secret("pasted-two"), fake_secret("service-key-1")


def put(page: Page, text: str, label: str = "API keys:") -> None:
    """Fill in a field without the event that loads the preview, which might appear before the click on the button."""
    page.get_by_label(label).evaluate("(field, text) => { field.value = text }", text)


def test_keys_are_shown_masked_before_they_are_added(page: Page) -> None:
    page.goto("/admin/proxy/apikey/add/")
    put(page, "team", "Google project:")
    put(page, f"{NEW}\nno key at all\n{KNOWN}\n{SECOND}\n")
    page.get_by_role("button", name="Save").click()

    expect(
        page.get_by_text("2 would be added, 1 known, 1 malformed (line 2). They will be added to project team")
    ).to_be_visible()
    expect(page.get_by_role("row").nth(2)).to_contain_text("not a key")
    assert NEW not in page.content()

    page.get_by_role("button", name="Add these 2 keys").click()
    expect(page.get_by_text("2 added, 1 known, 1 malformed (line 2).")).to_be_visible()


def test_a_click_just_after_the_preview_appears_adds_nothing(page: Page) -> None:
    page.clock.install(time=0)
    page.goto("/admin/proxy/apikey/add/")
    page.clock.pause_at(60_000)
    put(page, NEW)
    page.get_by_role("button", name="Save").click()
    button = page.get_by_role("button", name="Add this key")
    expect(button).to_be_disabled()

    page.clock.run_for(500)
    expect(button).to_be_enabled()


def test_the_preview_follows_what_is_typed(page: Page) -> None:
    page.goto("/admin/proxy/apikey/add/")
    field = page.get_by_label("API keys:")
    field.fill(NEW)
    expect(page.get_by_role("button", name="Add this key")).to_be_visible()

    field.fill(f"{NEW}\n{SECOND}")
    expect(page.get_by_role("button", name="Add these 2 keys")).to_be_visible()
    field.fill("")
    expect(page.get_by_role("button", name="Save")).to_be_visible()
    field.fill(KNOWN)
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("0 would be added, 1 known, 0 malformed.")).to_be_visible()


def test_keys_can_be_added_without_the_preview(page: Page) -> None:
    page.route("**/preview/", lambda route: route.fulfill(status=200, body="<p>something else</p>"))
    page.goto("/admin/proxy/apikey/add/")
    put(page, NEW)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The preview could not be loaded. You can save without it.")).to_be_visible()

    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("1 added, 0 known, 0 malformed.")).to_be_visible()


def test_a_key_is_checked_from_its_page(page: Page) -> None:
    page.goto("/admin/proxy/apikey/")
    page.locator("#result_list").get_by_role("link", name="…ey-1").click()
    check = page.get_by_role("button", name="Check with Google (uses no quota)")
    expect(check).to_be_visible()
    check.click()

    expect(page.get_by_text("Checked with Google: ")).to_be_visible()
