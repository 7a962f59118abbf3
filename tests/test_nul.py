"""A NUL in addresses and forms, which PostgreSQL refuses in text and SQLite does not."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.conftest import Pool

pytestmark = pytest.mark.django_db(transaction=True)

NUL = "%00"
PAGES = ["", "keys/", "exhaustion/", "models/", "requests/", "activity/", "health/"]
PARAMETERS = [
    *("range", "from", "to", "model", "project", "key", "day", "q", "state", "sort", "page", "outcome", "before"),
    *("after", "person", "action", "kind", "table", "format"),
]
LISTS = ["apikey", "project", "quota", "dailyusage", "exhaustionevent"]
LOOKUPS = ["q", "o", "p", "e", "model_name", "day", "window", "fault", "is_enabled__exact", "project__id"]


@pytest.fixture
def person(pool: Pool) -> Client:
    pool("one")
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("somebody"))
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_dashboard(person: Client, page: str) -> None:
    for name in PARAMETERS:
        assert person.get(f"/dashboard/{page}?{name}=a{NUL}").status_code == 200, name


@pytest.mark.parametrize("model", LISTS)
def test_a_list_of_the_admin(person: Client, model: str) -> None:
    for name in LOOKUPS:
        response = person.get(reverse(f"admin:proxy_{model}_changelist") + f"?{name}=a{NUL}", follow=True)
        assert response.status_code == 200, name


@pytest.mark.parametrize("model", LISTS)
def test_an_object_of_the_admin(person: Client, model: str) -> None:
    for action in ("change", "history", "delete"):
        assert person.get(f"/admin/proxy/{model}/a{NUL}/{action}/", follow=True).status_code in (200, 403, 404), action


def test_a_login(person: Client) -> None:
    person.logout()

    response = person.post("/admin/login/", {"username": "a\0b", "password": "c\0d", "next": "/dashboard/?q=\0"})

    assert response.status_code == 200


def test_a_form_of_the_admin(person: Client) -> None:
    fields = {"secrets": "a\0b", "project_name": "p\0", "name": "n\0"}

    assert person.post(reverse("admin:proxy_apikey_add"), fields).status_code == 200


def test_an_action_of_the_dashboard(person: Client) -> None:
    for name in ("action", "keys", "project_name", "next"):
        fields = {"action": "enable", "keys": "1", "project_name": "p", name: "a\0"}
        assert person.post("/dashboard/keys/", fields, follow=True).status_code in (200, 400), name
