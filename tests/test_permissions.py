"""Permissions: every action of the admin and every POST of the dashboard, without and with permission."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from proxy.models import ApiKey, GeminiModel, Quota
from proxy.pool.adding import add_keys
from proxy.pool.key_check import Verdict
from tests.conftest import FLASH, fake_secret

pytestmark = pytest.mark.django_db

# Django's own action asks for the permission to delete, and has tests of its own.
ACTIONS = [
    (model, name)
    for model, model_admin in admin.site._registry.items()
    if model._meta.app_label == "proxy"
    for name in model_admin.actions or []
    for name in (getattr(action, "__name__", action) for action in model_admin.actions or [])
]
DASHBOARD_POSTS = {"proxy:keys": ["check", "enable", "disable", "revive", "set_project"]}


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> None:
    add_keys([fake_secret("one")], timezone.now())
    GeminiModel.objects.begin(FLASH)
    Quota.objects.filter(model_name=FLASH).update(learned_requests_per_minute=5)
    for place in ("proxy.pool.actions",):  # nobody asks Google here
        monkeypatch.setattr(f"{place}.check_keys", lambda keys, _moment: [(key, Verdict.GOOD, "") for key in keys])


def staff(*permissions: str) -> Client:
    """Return a client of a staff member with these permissions for all of our models."""
    user = User.objects.create_user("-".join(permissions) or "none", is_staff=True)
    granted = Permission.objects.filter(content_type__app_label="proxy")
    user.user_permissions.set(p for p in granted if p.codename.split("_")[0] in permissions)
    client = Client()
    client.force_login(user)
    return client


def state() -> list[Any]:
    """Return everything that an action could change."""
    return [
        *ApiKey.objects.values_list("is_enabled", "fault", "next_check", "project__name"),
        *Quota.objects.filter(model_name=FLASH).values_list("learned_requests_per_minute"),
    ]


def post_action(client: Client, model: Any, action: str) -> Any:
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    row = model._default_manager.filter(**({"model_name": FLASH} if model is Quota else {})).get()
    return client.post(address, {"action": action, "_selected_action": [row.pk]}, follow=True)


def views_of_dashboard() -> Iterator[str]:
    def walk(patterns: list[Any]) -> Iterator[URLPattern]:
        for pattern in patterns:
            yield from walk(pattern.url_patterns) if isinstance(pattern, URLResolver) else [pattern]

    for pattern in walk(get_resolver().url_patterns):
        if str(pattern.pattern).startswith("dashboard/"):
            yield f"proxy:{pattern.name}"


def test_there_are_actions() -> None:
    assert len(ACTIONS) >= 5


@pytest.mark.parametrize(("model", "action"), ACTIONS)
@pytest.mark.parametrize("permissions", [(), ("view",)])
def test_no_action_of_the_admin_is_open_to_those_who_may_only_look(
    model: Any, action: str, permissions: tuple[str, ...]
) -> None:
    ApiKey.objects.update(is_enabled=action != "enable")
    before = state()

    response = post_action(staff(*permissions), model, action)

    assert state() == before
    assert f'<option value="{action}"' not in response.content.decode()


@pytest.mark.parametrize(("model", "action"), ACTIONS)
def test_who_may_change_may_use_every_action(model: Any, action: str) -> None:
    response = post_action(staff("view", "change"), model, action)

    assert [str(message.level_tag) for message in response.context["messages"]] == ["success"]
    assert LogEntry.objects.get().user.get_username() == "view-change"


@pytest.mark.parametrize("name", sorted(set(views_of_dashboard())))
@pytest.mark.parametrize("permissions", [(), ("view",)])
def test_no_page_of_the_dashboard_takes_a_post_of_those_who_may_only_look(
    name: str, permissions: tuple[str, ...]
) -> None:
    address = reverse(name, args=[ApiKey.objects.get().pk] if name == "proxy:key" else [])
    client, before = staff(*permissions), state()

    for action in DASHBOARD_POSTS.get(name, ["anything"]):
        posted = {"action": action, "chosen": [ApiKey.objects.get().pk], "project_name": "p"}
        assert client.post(address, posted).status_code in (403, 405)

    assert state() == before


def test_who_may_change_may_use_every_action_of_the_dashboard() -> None:
    client = staff("view", "change")

    for number, action in enumerate(DASHBOARD_POSTS["proxy:keys"]):
        posted = {"action": action, "chosen": [ApiKey.objects.get().pk], "project_name": "p"}
        assert client.post(reverse("proxy:keys"), posted).status_code == 302
        assert LogEntry.objects.count() == number + 1

    assert ApiKey.objects.get().project.name == "p"
