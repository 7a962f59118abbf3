"""The commands: their output, the files they write, and one clear sentence for every mistake."""

import errno
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from proxy.dashboard.reports import today
from proxy.gemini.refusals import Fault as KeyFault
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, Quota
from proxy.pool.adding import add_keys
from proxy.pool.key_check import Verdict, check_keys
from tests import gemini_errors as errors
from tests.conftest import FLASH, fake_secret
from tests.fake_gemini import FakeGemini, Fault, Reply

ROOT = Path(__file__).resolve().parent.parent
ONE, TWO, THREE = fake_secret("one"), fake_secret("two"), "AQ.Ab8RN6" + "x_-Y" * 10
USAGE: dict[str, Any] = {
    "date": "2026-11-20",
    "counts": {ONE: 12},
    "model_counts": {ONE: {FLASH: 12}},
    "exhausted_keys": {ONE: [FLASH]},
}


def call(name: str, *arguments: str, **options: object) -> tuple[str, str]:
    """Run a command in this process, and return its standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command(name, *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def pipe_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# importkeys


@pytest.mark.django_db
@pytest.mark.parametrize("is_piped", [False, True])
def test_keys_are_imported_however_they_are_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_piped: bool
) -> None:
    content = (
        f"\ufeff# mine\r\n\r\n {ONE} \r\n{TWO} # hers\r\n{ONE}\r\n[]\r\nsk-of-another-shape-1\r\nc: {THREE}".encode()
    )
    file = tmp_path / "key.txt"
    file.write_bytes(content)
    pipe_in(monkeypatch, content)

    out, err = call("importkeys", "-" if is_piped else str(file))

    assert out == "4 added, 0 known, 1 repeated, 0 malformed.\n"
    assert "line 7" in err
    assert set(ApiKey.objects.usable().values_list("secret", flat=True)) == {ONE, TWO, THREE, "sk-of-another-shape-1"}
    assert Quota.objects.filter(is_open=True).count() == 4
    assert ApiKey.objects.get(name="c").secret == THREE


@pytest.mark.django_db
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_keys_are_read_from_what_windows_calls_unicode(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "key.txt").write_bytes(f"{mark}张三={ONE}\r\n{TWO}\r\n".encode(encoding))

    call("importkeys", str(tmp_path / "key.txt"))

    assert set(ApiKey.objects.values_list("name", "secret")) == {("张三", ONE), ("", TWO)}


@pytest.mark.django_db
def test_malformed_lines_are_reported_and_all_other_keys_are_imported(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{ONE}\nno key\n{TWO}\nAIzaTooShort\n")

    with pytest.raises(CommandError) as error:
        call("importkeys", str(tmp_path / "key.txt"))

    assert str(error.value) == "Incomplete keys were skipped (lines 2, 4). All other keys were imported."
    assert set(ApiKey.objects.values_list("secret", flat=True)) == {ONE, TWO}


@pytest.mark.django_db
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o644])
def test_a_key_file_that_others_can_read_is_reported(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "my keys.txt"
    file.write_text(f"{ONE}\n")
    file.chmod(mode)

    _, err = call("importkeys", str(file))

    is_private = mode in (0o600, 0o400)
    assert err == ("" if is_private else f"Other users of this machine can read {file}: run `chmod 600 '{file}'`.\n")


@pytest.mark.django_db
def test_importing_keys_twice_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{ONE}\n{TWO}\n")
    (tmp_path / "key.txt").chmod(0o600)
    call("importkeys", str(tmp_path / "key.txt"))
    ApiKey.objects.filter(secret=ONE).disable(timezone.now())

    out, err = call("importkeys", str(tmp_path / "key.txt"))

    assert (out, err) == ("0 added, 2 known, 0 malformed.\n", "")
    assert ApiKey.objects.usable().count() == 1


@pytest.mark.django_db
def test_a_dry_run_shows_what_would_happen_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{ONE}\n{TWO}\n{ONE}\n")
    add_keys([ONE], timezone.now())

    out, _ = call("importkeys", str(tmp_path / "key.txt"), dry_run=True)

    assert out == "1 would be added, 1 known, 1 repeated, 0 malformed.\n"
    assert ApiKey.objects.count() == 1


@pytest.mark.django_db
def test_a_file_without_keys_adds_none(tmp_path: Path) -> None:
    (tmp_path / "key.txt").touch(0o600)

    assert call("importkeys", str(tmp_path / "key.txt")) == ("0 added, 0 known, 0 malformed.\n", "")


@pytest.mark.django_db
def test_long_lists_of_bad_lines_are_cut_short(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("no key\n" * 100)

    with pytest.raises(CommandError, match=r"lines 1, 2, 3,.* 20 and 80 more\)\. Nothing was imported"):
        call("importkeys", str(tmp_path / "key.txt"))


@pytest.mark.django_db
def test_an_import_of_keys_shows_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{ONE}\n{TWO}\nodd-shaped-key-00001\n{THREE} {THREE}\n")

    output = "".join(call("importkeys", str(tmp_path / "key.txt")))

    assert not [secret for secret in (ONE, TWO, THREE, "odd-shaped") if secret in output]


# What is no file, for every command that reads one


@pytest.mark.parametrize("name", ["importkeys", "importusage"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "directory"),
        (lambda path: path.write_bytes("Grüße".encode("latin-1")), "UTF-8"),
        (lambda path: path.write_bytes(f"{ONE}\n".encode("utf-16")[:-1]), "UTF-8"),
        (lambda path: path.symlink_to(path), "read"),
    ],
    ids=["missing", "directory", "latin-1", "half of UTF-16", "a link to itself"],
)
def test_an_unreadable_file_is_reported_in_one_sentence(
    tmp_path: Path, name: str, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "some.txt"
    make(path)

    with pytest.raises(CommandError, match=words) as error:
        call(name, str(path))

    assert "some.txt" in str(error.value)
    assert "\n" not in str(error.value)
    assert ONE not in str(error.value)


# importusage


@pytest.mark.django_db
@pytest.mark.parametrize("is_piped", [False, True])
def test_usage_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_piped: bool) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(USAGE).encode()
    (tmp_path / "key_usage.txt").write_bytes(content)
    pipe_in(monkeypatch, content)
    add_keys([ONE], timezone.now())

    out, err = call("importusage", "-" if is_piped else str(tmp_path / "key_usage.txt"))

    assert out.startswith("Imported 2026-11-20: answers 12")
    assert (out.count("\n"), err) == (1, "")
    assert DailyUsage.objects.get().answers == 12


@pytest.mark.django_db
def test_a_dry_run_of_usage_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "key_usage.txt").write_text(json.dumps(USAGE))

    out, _ = call("importusage", str(tmp_path / "key_usage.txt"), dry_run=True)

    assert "Nothing was changed" in out
    assert not ApiKey.objects.exists()
    assert not DailyUsage.objects.exists()


@pytest.mark.django_db
def test_keys_that_only_the_usage_knew_are_reported(tmp_path: Path) -> None:
    (tmp_path / "key_usage.txt").write_text(json.dumps(USAGE))

    out, _ = call("importusage", str(tmp_path / "key_usage.txt"))

    assert "not in the pool" in out
    assert ApiKey.objects.get().is_enabled is False


@pytest.mark.django_db
@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"date": "soon", "counts": {}}',
        json.dumps({**USAGE, "counts": {ONE: -1}}),
        json.dumps({**USAGE, "counts": {ONE: 10**30}}),
        json.dumps({**USAGE, "exhausted_keys": 5}),
        "[" * 100_000,
    ],
    ids=lambda content: content[:20],
)
def test_a_file_that_is_no_usage_is_refused_and_nothing_is_half_done(tmp_path: Path, content: str) -> None:
    (tmp_path / "key_usage.txt").write_text(content)

    with pytest.raises(CommandError, match=r"key_usage\.txt is not a valid key_usage\.txt: .*\.$") as error:
        call("importusage", str(tmp_path / "key_usage.txt"))

    assert ONE not in str(error.value)
    assert not ApiKey.objects.exists()


@pytest.mark.django_db
def test_usage_of_a_day_to_come_is_refused(tmp_path: Path) -> None:
    tomorrow = today(timezone.now()) + timedelta(days=1)
    (tmp_path / "key_usage.txt").write_text(json.dumps({**USAGE, "date": tomorrow.isoformat()}))

    with pytest.raises(CommandError, match=f"is for {tomorrow}"):
        call("importusage", str(tmp_path / "key_usage.txt"))

    assert not ApiKey.objects.exists()


# exportusage


@pytest.fixture
def usage(db: None) -> None:
    """Give the database one key with usage today and on 20 November 2026."""
    add_keys([ONE], timezone.now())
    key = ApiKey.objects.get()
    for day in (date(2026, 11, 20), today(timezone.now())):
        DailyUsage.objects.update_or_create(key=key, model_name=FLASH, day=day, defaults={"answers": 12})
    since = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    event = {"key": key, "project": key.project, "model_name": FLASH, "window": "day"}
    ExhaustionEvent.objects.create(**event, since=since, until=since + timedelta(days=1))


EXPORTED = json.dumps(USAGE, indent=4) + "\n"


def test_usage_is_written_to_the_letter_and_for_its_owner_alone(usage: None, tmp_path: Path) -> None:
    file = tmp_path / "key_usage.txt"
    file.write_text("old")
    file.chmod(0o666)

    out, _ = call("exportusage", str(file), day="2026-11-20")

    assert file.read_bytes() == EXPORTED.encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert out == f"Wrote the usage of 2026-11-20 to {file}.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["key_usage.txt"]


def test_a_file_that_was_not_there_is_private_whatever_the_umask(usage: None, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        call("exportusage", str(tmp_path / "key_usage.txt"), day="2026-11-20")
    finally:
        os.umask(mask)

    assert stat.S_IMODE((tmp_path / "key_usage.txt").stat().st_mode) == 0o600


def test_usage_can_go_to_standard_output(usage: None) -> None:
    out, err = call("exportusage", "-", day="2026-11-20")

    assert (out, err) == (EXPORTED, "")


def test_without_a_day_it_is_today(usage: None) -> None:
    out, _ = call("exportusage", "-")

    assert json.loads(out)["date"] == today(timezone.now()).isoformat()
    assert json.loads(out)["counts"] == {ONE: 12}


def test_a_relative_path_is_where_one_stands(usage: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    call("exportusage", "key_usage.txt", day="2026-11-20")

    assert (tmp_path / "key_usage.txt").read_text() == EXPORTED


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_the_old_file_whole(
    usage: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = tmp_path / "key_usage.txt"
    file.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(CommandError, match="cannot be written") as error:
        call("exportusage", str(file), day="2026-11-20")

    assert os.strerror(number) in str(error.value)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["key_usage.txt"]


def test_a_link_is_followed_and_stays_a_link(usage: None, tmp_path: Path) -> None:
    """A key_usage.txt that is a symbolic link is written to the linked file."""
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "usage.json", tmp_path / "key_usage.txt"
    target.write_text("old")
    link.symlink_to(target)

    call("exportusage", str(link), day="2026-11-20")

    assert link.is_symlink()
    assert target.read_text() == EXPORTED
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_device_is_not_replaced_by_a_file(usage: None, tmp_path: Path) -> None:
    """`exportusage /dev/stdout` as root in a container must not replace the device with a file."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(CommandError):
        call("exportusage", str(tmp_path / "pipe"), day="2026-11-20")

    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("place", ["", "missing/key_usage.txt", "file/key_usage.txt"])
def test_an_impossible_file_is_reported_in_one_sentence(usage: None, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CommandError, match=re.escape(str(tmp_path))) as error:
        call("exportusage", str(tmp_path / place))

    assert "\n" not in str(error.value)


@pytest.mark.django_db
@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "24.11.2026", "0", "9999-12-31", "0001-01-01"])
def test_an_impossible_day_is_reported_in_one_sentence_or_is_empty(day: str) -> None:
    try:
        out, _ = call("exportusage", "-", day=day)
    except CommandError as exc:
        assert day in str(exc)  # noqa: PT017  # either is fine, a traceback is not
    else:
        assert json.loads(out)["counts"] == {}


def test_an_export_can_be_imported_unchanged(usage: None, tmp_path: Path) -> None:
    call("exportusage", str(tmp_path / "first"), day="2026-11-20")
    DailyUsage.objects.all().delete()
    ExhaustionEvent.objects.all().delete()

    call("importusage", str(tmp_path / "first"))
    call("exportusage", str(tmp_path / "second"), day="2026-11-20")

    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()


# checkkeys


@pytest.fixture
def api(db: None, gemini: FakeGemini, settings: Settings) -> FakeGemini:
    """Let `checkkeys` use the fake API."""
    settings.UPSTREAM_URL = gemini.url
    return gemini


def add(*secrets: str) -> None:
    add_keys(secrets, timezone.now())


def faults() -> dict[str | None, str]:
    return dict(ApiKey.objects.exclude(fault="").values_list("secret", "fault"))


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (errors.invalid_key(), "invalid"),
        (errors.expired_key(), "expired"),
        (errors.leaked(), "leaked"),
        (errors.suspended(TWO), "suspended"),
        (errors.denied(), "denied"),
        (errors.service_blocked(), "blocked"),
        (errors.service_disabled(), "blocked"),
        (errors.wrong_credential_type(), "invalid"),
    ],
    ids=["invalid", "expired", "leaked", "suspended", "denied", "blocked", "disabled", "wrong type"],
)
def test_a_bad_key_is_found_and_leaves_the_rotation(api: FakeGemini, reply: Reply, fault: str) -> None:
    add(ONE, TWO)
    api.script(TWO, reply)

    out, err = call("checkkeys")

    assert faults() == {TWO: fault}
    assert not Quota.objects.filter(project__keys__secret=TWO, is_open=True).exists()
    assert "2 keys: 1 good, 1 bad, 0 unknown." in out
    assert f"bad, {fault}: " in out
    reason = ApiKey.objects.get(secret=TWO).fault_reason
    assert reason
    assert TWO not in out + err + reason
    assert TWO[4:-4] not in out + err + reason


def test_a_key_is_not_shown_where_a_long_message_is_cut(api: FakeGemini) -> None:
    add(ONE)
    message = "Permission denied: " + "x" * 250 + f" Consumer 'api_key:{ONE}' has been suspended."
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "CONSUMER_SUSPENDED"}
    api.script(ONE, errors.error(403, "PERMISSION_DENIED", message, info))

    out, err = call("checkkeys")

    reason = ApiKey.objects.get().fault_reason
    assert faults() == {ONE: "suspended"}
    assert ONE[:8] not in out + err + reason


@pytest.mark.parametrize(
    "reply",
    [
        errors.internal(),
        errors.overloaded(),
        errors.html_429(),
        errors.location(),
        errors.two_credentials(),
        Reply(404, b"not found"),
        Fault.RESET_BEFORE,
        Fault.RESET_MIDDLE,
    ],
    ids=["500", "503", "html", "location", "two credentials", "404", "reset", "reset halfway"],
)
def test_an_answer_that_is_not_about_the_key_changes_nothing(api: FakeGemini, reply: Reply | Fault) -> None:
    add(ONE, TWO)
    ApiKey.objects.filter(secret=TWO).mark_bad(KeyFault.LEAKED, "before", timezone.now())
    api.script("*", reply, reply)
    api.script(ONE, Reply(200, {"models": []}))

    out, _ = call("checkkeys")

    assert faults() == {TWO: "leaked"}
    assert "2 keys: 1 good, 0 bad, 1 unknown." in out


def test_an_exhausted_quota_is_not_a_fault(api: FakeGemini) -> None:
    add(ONE)
    api.script(ONE, errors.per_day_long())

    out, _ = call("checkkeys")

    assert faults() == {}
    assert "1 good, 0 bad, 0 unknown." in out


def test_a_key_that_stays_bad_is_checked_later(api: FakeGemini) -> None:
    add(ONE)
    ApiKey.objects.mark_bad(KeyFault.SUSPENDED, "before", timezone.now() - timedelta(hours=5))
    api.script(ONE, errors.suspended(ONE))

    call("checkkeys")

    key = ApiKey.objects.get()
    assert key.fault_reason == "before"
    assert key.next_check is not None
    assert abs(key.next_check - timezone.now() - timedelta(hours=5)) < timedelta(minutes=1)


def test_a_bad_key_that_works_again_becomes_usable(api: FakeGemini) -> None:
    add(ONE, TWO)
    ApiKey.objects.mark_bad(KeyFault.SUSPENDED, "before", timezone.now())
    api.know(ONE)

    call("checkkeys")

    assert faults() == {TWO: "suspended"}
    one = ApiKey.objects.get(secret=ONE)
    assert (one.fault_reason, one.fault_since, one.next_check) == ("", None, None)
    assert Quota.objects.filter(is_open=True).get().project == one.project
    assert ApiKey.objects.get(secret=TWO).fault_reason == "before"


def test_disabled_keys_are_checked_and_stay_disabled_and_deleted_keys_are_not(api: FakeGemini) -> None:
    add(ONE, TWO, THREE)
    ApiKey.objects.filter(secret=TWO).disable(timezone.now())
    ApiKey.objects.filter(secret=THREE).forget(timezone.now())

    out, _ = call("checkkeys")

    assert sorted(api.secrets_seen) == [ONE, TWO]
    assert "2 keys: 2 good" in out
    assert not ApiKey.objects.get(secret=TWO).is_enabled


def test_a_check_sends_one_credential_and_uses_no_quota(api: FakeGemini) -> None:
    add(ONE)

    call("checkkeys")

    [seen] = api.seen
    assert (seen.method, seen.credentials) == ("GET", [ONE])
    assert seen.header("x-goog-api-key") == ONE
    assert ONE not in seen.path
    assert not api.accepted
    assert not DailyUsage.objects.exists()


def test_a_redirect_is_not_followed(api: FakeGemini) -> None:
    add(ONE)
    with FakeGemini() as elsewhere:
        api.script(ONE, Reply(302, b"", {"Location": f"{elsewhere.url}/v1beta/models"}))

        with pytest.raises(CommandError):
            call("checkkeys")

        assert elsewhere.seen == []


def test_a_check_without_an_answer_does_not_delay_the_others(api: FakeGemini) -> None:
    add(ONE, TWO, THREE)
    api.script(TWO, Fault.HANG)
    verdicts = check_keys(ApiKey.objects.all(), timezone.now())

    first = {key.secret: verdict for key, verdict, _ in (next(verdicts), next(verdicts))}
    is_asked = api.wait_for(lambda: len(api.seen) == 3)
    api.reset()  # ends the connection that hangs

    assert is_asked
    assert first == {ONE: Verdict.GOOD, THREE: Verdict.GOOD}
    assert [(key.secret, verdict) for key, verdict, _ in verdicts] == [(TWO, Verdict.UNKNOWN)]


def test_many_keys_are_checked_at_once(api: FakeGemini) -> None:
    secrets = [fake_secret(f"key{number}") for number in range(40)]
    add(*secrets)
    api.script("*", *[Fault.HANG] * 8)

    def let_go() -> None:
        api.wait_for(lambda: len(api.seen) == 40)
        api.reset()

    other = threading.Thread(target=let_go)
    other.start()

    out, _ = call("checkkeys")
    other.join()

    assert "40 keys: 32 good, 0 bad, 8 unknown." in out


def test_the_command_fails_if_no_key_could_be_checked(api: FakeGemini) -> None:
    add(ONE, TWO)
    api.script("*", errors.overloaded(), errors.overloaded())

    with pytest.raises(CommandError, match="UPSTREAM_URL"):
        call("checkkeys")


@pytest.mark.django_db
def test_an_upstream_that_is_not_there_makes_the_command_fail(settings: Settings) -> None:
    add(ONE)
    with FakeGemini() as gone:
        settings.UPSTREAM_URL = gone.url

    with pytest.raises(CommandError, match="UPSTREAM_URL"):
        call("checkkeys")

    assert faults() == {}


@pytest.mark.django_db
def test_without_keys_there_is_nothing_to_check() -> None:
    with pytest.raises(CommandError, match="no keys yet"):
        call("checkkeys")


# As people run them


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a data folder with an empty database, once."""
    folder = tmp_path_factory.mktemp("migrated")
    assert run(folder, "migrate").returncode == 0
    return folder / "data"


def run(folder: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run manage.py in a separate process, with its data in `folder`."""
    variables = {"DATA_DIR": str(folder / "data"), "LOG_DIR": "", "DATABASE_URL": f"sqlite:///{folder}/data/db.sqlite3"}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_keys_are_read_from_pipes_and_usage_is_written_to_them(migrated: Path, tmp_path: Path) -> None:
    shutil.copytree(migrated, tmp_path / "data")

    imported = run(tmp_path, "importkeys", "-", text=f"{ONE}\n{TWO}\n")
    taken = run(tmp_path, "importusage", "-", text=json.dumps(USAGE))
    exported = run(tmp_path, "exportusage", "-", "--day", "2026-11-20")

    assert (imported.returncode, imported.stdout, imported.stderr) == (0, "2 added, 0 known, 0 malformed.\n", "")
    assert (taken.returncode, taken.stderr) == (0, "")
    assert (exported.returncode, exported.stdout, exported.stderr) == (0, EXPORTED, "")


def test_malformed_lines_end_an_import_with_status_1_and_good_keys_are_in_the_pool(
    migrated: Path, tmp_path: Path
) -> None:
    shutil.copytree(migrated, tmp_path / "data")

    done = run(tmp_path, "importkeys", "-", text=f"{ONE}\nAIzaTooShort\n{TWO}\nsome words\n")
    again = run(tmp_path, "importkeys", "-", text=f"{ONE}\n{TWO}\n")

    assert (done.returncode, done.stdout) == (1, "2 added, 0 known, 2 malformed (lines 2, 4).\n")
    assert done.stderr == ("CommandError: Incomplete keys were skipped (lines 2, 4). All other keys were imported.\n")
    assert (again.returncode, again.stdout, again.stderr) == (0, "0 added, 2 known, 0 malformed.\n", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["importkeys", "missing.txt"], ""),
        (["importusage", "-"], "{"),
        (["exportusage", "tests"], ""),
        (["checkkeys"], ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_on_stderr_and_an_exit_code(
    migrated: Path, tmp_path: Path, arguments: list[str], text: str
) -> None:
    shutil.copytree(migrated, tmp_path / "data")

    done = run(tmp_path, *arguments, text=text)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("CommandError: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["importkeys", "-"], ["checkkeys"]], ids=lambda value: value[0])
def test_a_missing_migration_is_reported(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments, text=f"{ONE}\n")

    assert done.returncode != 0
    assert "migrate" in done.stderr
    assert "Traceback" not in done.stderr
