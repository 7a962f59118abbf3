"""Adding keys in the admin with a preview of each pasted line, and checking one key. Nothing shows a key."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from proxy.admin.paste import MOST_LINES, Preview, Verdict
from proxy.models import ApiKey, KeyState, Project
from proxy.pool.adding import add_keys
from tests import gemini_errors as errors
from tests.conftest import fake_secret
from tests.fake_gemini import FakeGemini, Fault

ADD, PREVIEW = "/admin/proxy/apikey/add/", "/admin/proxy/apikey/preview/"
ONE, TWO, THREE = fake_secret("one1"), fake_secret("two2"), "AQ.Ab8RN6" + "x_-Y" * 10
ODD = "sk-of-another-shape-1"
SENTENCE = f"this is {TWO[:30]} no key"
PASTED = f"# mine\r\n{ONE}\r\n{TWO} # hers\r\n\r\n{SENTENCE}\r\n{THREE}\r\n{TWO}\r\n{ODD}\r\n"


def logged_in(*permissions: str) -> Client:
    """Return a client of a staff member with these permissions."""
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def clerk(transactional_db: None) -> Client:
    """A client of a user who may add, view and change keys."""
    return logged_in("add_apikey", "view_apikey", "change_apikey")


def preview(client: Client, secrets: str, project: str = "") -> dict[str, Any]:
    response = client.post(PREVIEW, {"secrets": secrets, "name": "", "project_name": project})
    assert response.status_code == 200
    content: dict[str, Any] = response.json()
    return content


def add(client: Client, secrets: str, **values: str) -> str:
    """Add keys, and return the page after all redirects."""
    response = client.post(ADD, {"secrets": secrets, "name": "", "project_name": "", **values}, follow=True)
    return str(response.content.decode())


# The preview


def test_a_preview_shows_what_each_line_is_and_writes_nothing(clerk: Client) -> None:
    add_keys([ONE], timezone.now())

    found = preview(clerk, PASTED)

    assert found["summary"].startswith("3 would be added, 1 known, 1 repeated, 1 malformed (line 5). ")
    assert found["button"] == "Add these 3 keys"
    assert found["left_out"] == [5]
    assert [(line.number, line.label, line.verdict) for line in Preview.of(PASTED, "").lines] == [
        (2, "…one1", Verdict.KNOWN),
        (3, "…two2", Verdict.NEW),
        (5, "", Verdict.MALFORMED),
        (6, f"…{THREE[-4:]}", Verdict.NEW),
        (7, "…two2", Verdict.REPEATED),
        (8, "…pe-1", Verdict.ODD),
    ]
    assert [
        word
        for word in ("…one1", "…two2", "✕ not a key", "● new", "○ already in the pool")
        if word not in found["lines"]
    ] == []
    assert ApiKey.objects.count() == 1


def test_no_key_is_in_a_preview_and_it_is_not_cached(clerk: Client) -> None:
    response = clerk.post(PREVIEW, {"secrets": PASTED, "project_name": ONE})

    assert "no-store" in response.headers["Cache-Control"]
    content = response.content.decode()
    assert not [secret for secret in (ONE, TWO, THREE, ODD, "this is") if secret in content]


@pytest.mark.parametrize(
    ("project", "words"),
    [
        ("", "Their project is unknown: each key counts as a separate project"),
        ("team", "They will be added to project team, which has 2 keys."),
        (" new ", "They will be added to project new, which has no keys yet."),
    ],
)
def test_a_preview_names_the_project_the_keys_go_to(clerk: Client, project: str, words: str) -> None:
    add_keys([ONE, THREE], timezone.now(), project="team")

    assert words in preview(clerk, TWO, project)["summary"]
    assert Project.objects.count() == 1


def test_one_key_is_called_one_key(clerk: Client) -> None:
    assert preview(clerk, ONE)["button"] == "Add this key"


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_a_preview_of_an_empty_text_is_empty(clerk: Client, text: str) -> None:
    assert preview(clerk, text) == {"summary": "", "lines": "", "button": "", "left_out": []}


def test_where_all_keys_are_known_there_is_nothing_to_add(clerk: Client) -> None:
    add_keys([ONE], timezone.now())

    found = preview(clerk, ONE)

    assert (found["summary"], found["button"]) == ("0 would be added, 1 known, 0 malformed.", "")


def test_a_long_preview_shows_malformed_lines_before_all_others(
    clerk: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    text = "\n".join([*(fake_secret(f"{number:05}") for number in range(1200)), "no key at all"])

    with django_assert_num_queries(3):  # 500 keys in each
        found = Preview.of(text, "")

    assert found.new == 1200
    assert len(found.shown) == MOST_LINES
    assert found.shown[-1].number == 1201
    assert found.not_shown == 901
    assert "and 901 more lines" in preview(clerk, text)["lines"]


def test_markup_in_a_project_name_stays_text(clerk: Client) -> None:
    found = preview(clerk, f"{ONE}\n<b>bold</b> <script>", "<script>alert(1)</script>")

    assert "<script" not in found["lines"]
    assert "<b>" not in found["lines"]  # the other text is set as text, never as markup


def test_a_preview_is_for_those_who_may_add_keys(transactional_db: None) -> None:
    assert logged_in("view_apikey").post(PREVIEW, {"secrets": ONE}).status_code == 403
    assert Client().post(PREVIEW, {"secrets": ONE}).status_code == 302


def test_a_preview_needs_post_and_a_csrf_token(clerk: Client) -> None:
    assert clerk.get(PREVIEW).status_code == 405
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = clerk.cookies
    assert careful.post(PREVIEW, {"secrets": ONE}).status_code == 403


# Adding


def test_the_page_has_what_its_script_needs(clerk: Client) -> None:
    page = clerk.get(ADD).content.decode()

    assert 'src="/static/proxy/paste.js"' in page
    assert f'data-address="{PREVIEW}"' in page
    assert 'aria-live="polite"' in page


def test_lines_that_were_shown_as_malformed_are_left_out(clerk: Client) -> None:
    page = add(clerk, PASTED, left_out=",".join(map(str, preview(clerk, PASTED)["left_out"])))

    assert "4 added, 0 known, 1 repeated, 1 malformed (line 5)." in page
    assert "skipped (line 5). All other keys were imported." in page
    assert "do not look like AIza… or AQ.…: line 8." in page
    assert set(ApiKey.objects.values_list("secret", flat=True)) == {ONE, TWO, THREE, ODD}


@pytest.mark.parametrize("left_out", ["", "4", "55", "nonsense"])
def test_malformed_lines_that_were_not_shown_are_refused(clerk: Client, left_out: str) -> None:
    page = add(clerk, PASTED, left_out=left_out)

    assert "These lines are not keys: 5." in page
    assert not ApiKey.objects.exists()


def test_a_paste_that_is_refused_is_not_shown_back(clerk: Client) -> None:
    page = add(clerk, PASTED)

    assert not [secret for secret in (ONE, TWO, THREE, ODD, "this is") if secret in page]


def test_a_paste_without_a_key_is_refused(clerk: Client) -> None:
    assert "No key found." in add(clerk, "# nothing")
    assert "No key found." in add(clerk, "no key", left_out="1")
    assert not ApiKey.objects.exists()


def test_the_log_of_the_admin_names_the_key_that_was_added(clerk: Client) -> None:
    add(clerk, ONE, name="Anna's")

    assert "Anna&#x27;s …one1" in clerk.get("/admin/").content.decode()


def test_a_name_beside_a_key_is_kept_and_the_name_of_the_form_is_for_all_others(clerk: Client) -> None:
    pasted = f'{{"Anna": "{ONE}"}}\n{TWO}'

    assert [line.label for line in Preview.of(pasted, "").lines] == ["Anna …one1", "…two2"]
    add(clerk, pasted, name="team")

    assert set(ApiKey.objects.values_list("secret", "name")) == {(ONE, "Anna"), (TWO, "team")}


def test_a_line_may_hold_a_key_twice_and_another_that_is_not_whole(clerk: Client) -> None:
    lines = Preview.of(f"{ONE},{ONE},AIzaTooShort", "").shown

    assert [line.verdict for line in lines] == [Verdict.MALFORMED, Verdict.NEW, Verdict.REPEATED]


# Checking one key


@pytest.fixture
def key(clerk: Client, gemini: FakeGemini, settings: Settings) -> ApiKey:
    """A key with its page open, and the fake API that will be asked about it."""
    settings.UPSTREAM_URL = gemini.url
    add_keys([ONE], timezone.now())
    return ApiKey.objects.get()


def check(client: Client, key: ApiKey) -> str:
    response = client.post(f"/admin/proxy/apikey/{key.pk}/check/", follow=True)
    assert response.redirect_chain == [(f"/admin/proxy/apikey/{key.pk}/change/", 302)]
    return str(response.content.decode())


def test_a_good_key_is_called_good(clerk: Client, gemini: FakeGemini, key: ApiKey) -> None:
    assert "Checked with Google: good." in check(clerk, key)
    assert [(seen.method, seen.path) for seen in gemini.seen] == [("GET", "/v1beta/models?pageSize=1")]


def test_a_bad_key_is_called_bad_with_googles_words(clerk: Client, gemini: FakeGemini, key: ApiKey) -> None:
    gemini.script(ONE, errors.suspended(ONE))

    page = check(clerk, key)

    assert "Checked with Google: bad, suspended: Permission denied:" in page
    assert ONE not in page
    assert ApiKey.objects.get().state is KeyState.BAD


def test_a_key_whose_check_gets_no_answer_stays_unchanged(clerk: Client, gemini: FakeGemini, key: ApiKey) -> None:
    gemini.script(ONE, Fault.RESET_BEFORE)

    assert "Checked with Google: unknown, no answer." in check(clerk, key)
    assert ApiKey.objects.get().state is KeyState.USABLE


def test_a_check_is_for_those_who_may_change_keys(clerk: Client, gemini: FakeGemini, key: ApiKey) -> None:
    address = f"/admin/proxy/apikey/{key.pk}/check/"
    assert "Check with Google" in clerk.get(f"/admin/proxy/apikey/{key.pk}/change/").content.decode()
    User.objects.get().user_permissions.set(Permission.objects.filter(codename="view_apikey"))

    assert address not in clerk.get(f"/admin/proxy/apikey/{key.pk}/change/").content.decode()
    assert clerk.post(address).status_code == 403
    assert clerk.get(address).status_code == 405
    assert gemini.seen == []


def test_a_key_that_is_gone_cannot_be_checked(clerk: Client, gemini: FakeGemini, key: ApiKey) -> None:
    ApiKey.objects.all().forget(timezone.now())

    assert clerk.post(f"/admin/proxy/apikey/{key.pk}/check/").status_code == 404
    assert gemini.seen == []
