"""Which request bodies our own pages accept, with and without a login."""

from pathlib import Path

import pytest
import requests
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django.fixtures import Settings

from proxy.security.page_requests import MOST_BYTES_OF_STRANGERS
from tests.fake_gemini import FakeGemini
from tests.service import running

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"
PAGES = ["/admin/login/", "/admin/", "/admin/none/", "/dashboard/", "/dashboard/none/", "/static/none"]


@pytest.mark.parametrize("page", PAGES)
def test_strangers_send_small_forms_only(page: str) -> None:
    assert Client().post(page, "x" * (MOST_BYTES_OF_STRANGERS + 1), content_type=FORM).status_code == 413
    assert Client().post(page, "x" * MOST_BYTES_OF_STRANGERS, content_type=FORM).status_code != 413


def test_people_who_are_logged_in_paste_more_and_not_without_end(settings: Settings, admin_client: Client) -> None:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    page = "/admin/proxy/apikey/add/"

    assert admin_client.post(page, "x" * most, content_type=FORM).status_code == 200
    refused = admin_client.post(page, "x" * (most + 1), content_type=FORM)

    assert refused.status_code == 413
    assert refused.content.decode() == "This form is larger than 4096 kB. Submit it in smaller parts."


def test_no_file_is_kept(settings: Settings, tmp_path: Path) -> None:
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "missing")  # whoever writes a file fails
    User.objects.create_superuser("admin", password="right")
    client = Client()
    form = {"a": SimpleUploadedFile("a", b"x" * 60_000), "username": "admin", "password": "right", "b": "c"}

    answer = client.post("/admin/login/?next=/admin/", form)

    assert answer.status_code == 302  # the fields around the file are read
    large = SimpleUploadedFile("a", b"x" * 3_000_000)
    assert client.post("/admin/proxy/apikey/add/", {"a": large}).status_code == 200


def test_a_large_upload_to_the_login_page_leaves_nothing_in_the_temporary_folder(
    tmp_path: Path, gemini: FakeGemini
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with running(tmp_path, gemini, TMPDIR=str(temporary)) as service:
        before = set(temporary.rglob("*"))
        answer = requests.post(f"{service.url}/admin/login/", files={"a": b"x" * 5_000_000}, timeout=20)
        after = set(temporary.rglob("*"))

    assert answer.status_code == 413
    assert after <= before
