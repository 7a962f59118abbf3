"""key_usage.txt: read in both formats, added to our counts, and written exactly like the script's."""

import json
import random
import time
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from proxy.ledger import Ledger
from proxy.ledger.claims import PoolExhausted
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Quota
from proxy.models.quotas import QuotaQuerySet
from proxy.pool.adding import add_keys
from proxy.pool.usage_file import BadUsageFile, export_usage, import_usage, parse_usage
from tests.conftest import FLASH, Clocks, claim_of, fake_secret

DAY = date(2026, 11, 24)
NOON = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)  # in California
MIDNIGHT = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
ONE, TWO, THREE = fake_secret("one"), fake_secret("two"), fake_secret("three")
PRO = "gemini-2.5-pro"

NEWER = {
    "date": "2026-11-24",
    "counts": {ONE: 12, TWO: 3},
    "model_counts": {ONE: {FLASH: 10, PRO: 2}, TWO: {FLASH: 3}},
    "exhausted_keys": {ONE: [FLASH, PRO], TWO: [FLASH]},
}
OLDER = {"date": "2026-11-24", "counts": {ONE: 12, TWO: 3}, "exhausted_keys": [ONE]}


def take_over(content: object, moment: datetime = NOON) -> int:
    return import_usage(parse_usage(json.dumps(content)), moment)


def answers() -> dict[tuple[str | None, str], int]:
    """Return the counts by secret and model, without zeros."""
    rows = DailyUsage.objects.exclude(answers=0).values_list("key__secret", "model_name", "answers")
    return {(secret, model_name): number for secret, model_name, number in rows}


def closed() -> set[tuple[str | None, str]]:
    """Return the secret and model of all limited quotas of enabled keys."""
    enabled = ApiKey.objects.filter(is_enabled=True, project__quotas__is_open=False)
    return set(enabled.values_list("secret", "project__quotas__model_name"))


def test_the_newer_form_is_read() -> None:
    usage = parse_usage(json.dumps(NEWER))

    assert (usage.day, usage.answers, usage.secrets) == (DAY, 15, [ONE, TWO])
    assert usage.counts == {ONE: {FLASH: 10, PRO: 2}, TWO: {FLASH: 3}}
    assert usage.exhausted == {ONE: [FLASH, PRO], TWO: [FLASH]}


def test_the_older_form_is_read() -> None:
    usage = parse_usage(json.dumps(OLDER))

    assert usage.counts == {ONE: {"-": 12}, TWO: {"-": 3}}
    assert usage.exhausted == {ONE: [""]}


def test_answers_that_no_model_accounts_for_are_not_lost() -> None:
    """A script that was upgraded to count by model in the middle of a day writes this."""
    usage = parse_usage(json.dumps({"date": "2026-11-24", "counts": {ONE: 12}, "model_counts": {ONE: {FLASH: 2}}}))

    assert usage.counts == {ONE: {FLASH: 2, "-": 10}}
    assert usage.answers == 12


def test_a_file_without_any_usage_is_one() -> None:
    usage = parse_usage('{"date": "2026-11-24", "counts": {}, "model_counts": {}, "exhausted_keys": {}}')

    assert (usage.answers, usage.secrets) == (0, [])


def changed(**fields: Any) -> str:
    return json.dumps({**NEWER, **fields})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        "{}",
        '{"date": "2026-11-24"}',
        '{"counts": {}}',
        "[" * 100_000,
        '{"date": "2026-11-24", "counts": {"x": ' + "9" * 5_000 + "}}",
        changed(date="yesterday"),
        changed(date="24.11.2026"),
        changed(date=20261124),
        changed(date=None),
        changed(date="2026-02-30"),
        changed(counts=[ONE]),
        changed(counts={ONE: "12"}),
        changed(counts={ONE: 1.5}),
        changed(counts={ONE: -1}),
        changed(counts={ONE: True}),
        changed(counts={ONE: None}),
        changed(counts={ONE: 10**30}),
        changed(counts=None),
        changed(model_counts=[FLASH]),
        changed(model_counts={ONE: 12}),
        changed(model_counts={ONE: {FLASH: -1}}),
        changed(model_counts={ONE: {FLASH: False}}),
        changed(model_counts={ONE: {FLASH: 10**30}}),
        changed(model_counts={ONE: None}),
        changed(exhausted_keys="all"),
        changed(exhausted_keys=None),
        changed(exhausted_keys=[1]),
        changed(exhausted_keys={ONE: FLASH}),
        changed(exhausted_keys={ONE: [1]}),
        changed(exhausted_keys={ONE: None}),
        changed(counts={"": 5}),
        changed(counts={"two words": 5}),
        changed(counts={f"{ONE}\n": 5}),
        changed(counts={"x" * 301: 5}),
        changed(exhausted_keys=[""]),
    ],
    ids=lambda text: text[:60].replace(ONE, "ONE") if len(text) < 400 else text[:20],
)
def test_what_is_no_usage_file_is_refused_without_showing_a_key(text: str) -> None:
    with pytest.raises(BadUsageFile) as refused:
        parse_usage(text)

    assert 10 < len(str(refused.value)) < 200
    assert ONE not in str(refused.value)


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(), st.text(max_size=5), st.just("2026-11-24")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)),
    max_leaves=8,
)


@given(date=st.one_of(st.just("2026-11-24"), JSON), counts=JSON, model_counts=JSON, exhausted=JSON)
@settings(max_examples=100, deadline=None)
def test_whatever_the_file_holds_it_is_read_or_refused(
    date: object, counts: object, model_counts: object, exhausted: object
) -> None:
    content = {"date": date, "counts": counts, "model_counts": model_counts, "exhausted_keys": exhausted}
    try:
        usage = parse_usage(json.dumps(content))
    except BadUsageFile:
        return

    assert usage.answers >= 0
    assert set(usage.secrets) == {*usage.counts, *usage.exhausted}


@pytest.mark.django_db
def test_an_import_brings_counts_and_exhaustion() -> None:
    add_keys([ONE, TWO, THREE], NOON)

    unknown = take_over(NEWER)

    assert unknown == 0
    assert answers() == {(ONE, FLASH): 10, (ONE, PRO): 2, (TWO, FLASH): 3}
    assert closed() == {(ONE, FLASH), (ONE, PRO), (TWO, FLASH)}
    assert set(ExhaustionEvent.objects.values_list("until", flat=True)) == {MIDNIGHT}


@pytest.mark.django_db
def test_a_key_that_the_older_form_calls_exhausted_rests_for_all_models() -> None:
    add_keys([ONE, TWO], NOON)
    GeminiModel.objects.begin(FLASH)

    take_over(OLDER)

    assert answers() == {(ONE, "-"): 12, (TWO, "-"): 3}
    assert closed() == {(ONE, ""), (ONE, FLASH)}


@pytest.mark.django_db
def test_an_exhausted_key_lets_its_project_rest() -> None:
    add_keys([ONE, TWO], NOON, project="p1")

    take_over({**NEWER, "exhausted_keys": {ONE: [PRO]}})

    assert closed() == {(ONE, PRO), (TWO, PRO)}


@pytest.mark.django_db
@pytest.mark.parametrize("content", [NEWER, OLDER])
def test_importing_twice_is_harmless(content: object) -> None:
    add_keys([ONE, TWO], NOON)
    take_over(content)
    before = answers(), closed(), ExhaustionEvent.objects.count()

    take_over(content, NOON + timedelta(hours=1))

    assert (answers(), closed(), ExhaustionEvent.objects.count()) == before


@pytest.mark.django_db
def test_a_later_state_of_the_same_day_adds_what_is_new_in_it() -> None:
    add_keys([ONE, TWO], NOON)
    take_over(NEWER)

    take_over({**NEWER, "counts": {ONE: 15, TWO: 3}, "model_counts": {ONE: {FLASH: 10, PRO: 5}, TWO: {FLASH: 3}}})

    assert answers() == {(ONE, FLASH): 10, (ONE, PRO): 5, (TWO, FLASH): 3}


@pytest.mark.django_db
def test_counts_come_on_top_of_what_was_answered_here() -> None:
    add_keys([ONE, TWO], NOON)
    key = ApiKey.objects.get(secret=ONE)
    DailyUsage.objects.create(key=key, model_name=FLASH, day=DAY, answers=100, errors=7, refusals=3, prompt_tokens=9)
    take_over(NEWER)
    DailyUsage.objects.filter(key=key, model_name=FLASH).update(answers=111)  # one more was answered here

    take_over({**NEWER, "counts": {ONE: 14}, "model_counts": {ONE: {FLASH: 14}}})

    row = DailyUsage.objects.get(key=key, model_name=FLASH)
    assert row.answers == 115
    assert (row.errors, row.refusals, row.prompt_tokens) == (7, 3, 9)


@pytest.mark.django_db
def test_a_later_file_with_models_counts_no_answer_twice() -> None:
    """Twelve answers were in the file, and later one more: thirteen, even if the later file names their models."""
    add_keys([ONE], NOON)
    take_over({"date": "2026-11-24", "counts": {ONE: 12}, "exhausted_keys": []})

    take_over({"date": "2026-11-24", "counts": {ONE: 13}, "model_counts": {ONE: {FLASH: 13}}, "exhausted_keys": {}})

    assert sum(answers().values()) == 13


@pytest.mark.django_db
def test_unknown_keys_are_kept_with_their_counts_and_are_not_used() -> None:
    add_keys([TWO], NOON)

    unknown = take_over(NEWER)

    key = ApiKey.objects.get(secret=ONE)
    assert unknown == 1
    assert not key.is_enabled
    assert answers()[ONE, FLASH] == 10
    assert not Quota.objects.filter(project=key.project, is_open=True).exists()


@pytest.mark.django_db(transaction=True)
def test_imported_answers_count_towards_the_limit_of_the_day(service: Ledger, clocks: Clocks) -> None:
    add_keys([ONE], NOON)
    GeminiModel.objects.begin(FLASH)
    Quota.objects.of_models().set_limits(NOON, requests_per_day=11)
    claim = claim_of(service)
    service.book_answer(claim, 200)

    take_over({**NEWER, "exhausted_keys": {}})

    with pytest.raises(PoolExhausted) as exhausted:
        claim_of(service)
    assert exhausted.value.opens_at == MIDNIGHT


@pytest.mark.django_db
def test_a_past_day_becomes_history_and_lets_nobody_rest() -> None:
    add_keys([ONE, TWO], NOON)

    take_over({**NEWER, "date": "2026-11-20"})

    assert closed() == set()
    assert set(DailyUsage.objects.values_list("day", flat=True)) == {date(2026, 11, 20)}
    event = ExhaustionEvent.objects.filter(key__secret=TWO).get()
    assert event.since == datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    assert event.until == datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


@pytest.mark.django_db
def test_a_key_revived_after_an_import_stays_awake_when_the_file_comes_again() -> None:
    add_keys([ONE, TWO], NOON)
    take_over(NEWER)
    ApiKey.objects.revive(NOON + timedelta(minutes=1))

    take_over(NEWER, NOON + timedelta(minutes=2))

    assert closed() == set()


@pytest.mark.django_db
def test_a_failing_import_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    add_keys([TWO], NOON)
    monkeypatch.setattr(QuotaQuerySet, "recount", None)  # the last step but one

    with pytest.raises(TypeError):
        take_over(NEWER)

    assert list(ApiKey.objects.values_list("secret", flat=True)) == [TWO]
    assert answers() == {}
    assert not ExhaustionEvent.objects.exists()


@pytest.mark.django_db
def test_nothing_pauses_while_an_import_holds_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """While many keys are added, others can write in between. In one transaction, they would have to wait."""
    pauses: list[float] = []
    monkeypatch.setattr("proxy.pool.adding.time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    secrets = [f"secret-{number:04}" for number in range(1_001)]

    take_over({"date": "2026-11-24", "counts": dict.fromkeys(secrets, 0)})

    assert pauses == []


@pytest.mark.django_db
def test_an_import_makes_its_list_of_keys_once_and_not_once_for_each_key() -> None:
    """With ten thousand keys, one query for each takes minutes, during which nothing else can write."""
    secrets = [f"secret-{number:04}" for number in range(100)]
    add_keys(secrets, NOON)
    usage = parse_usage(
        json.dumps({"date": "2026-11-24", "counts": {}, "exhausted_keys": {secret: [] for secret in secrets}})
    )
    lists_made = 0

    class Watched:
        """The same file, which counts how often its list of keys is read."""

        day, counts, exhausted = usage.day, usage.counts, usage.exhausted

        @property
        def secrets(self) -> list[str]:
            nonlocal lists_made
            lists_made += 1
            return usage.secrets

    import_usage(Watched(), NOON)  # type: ignore[arg-type]  # it has all that a UsageFile has

    assert lists_made < 10


@pytest.mark.django_db
def test_an_export_is_the_file_people_know_to_the_letter() -> None:
    add_keys([ONE, TWO], NOON)
    take_over(NEWER)

    text = export_usage(DAY, NOON)

    assert text == (
        "{\n"
        '    "date": "2026-11-24",\n'
        '    "counts": {\n'
        f'        "{ONE}": 12,\n'
        f'        "{TWO}": 3\n'
        "    },\n"
        '    "model_counts": {\n'
        f'        "{ONE}": {{\n'
        f'            "{FLASH}": 10,\n'
        f'            "{PRO}": 2\n'
        "        },\n"
        f'        "{TWO}": {{\n'
        f'            "{FLASH}": 3\n'
        "        }\n"
        "    },\n"
        '    "exhausted_keys": {\n'
        f'        "{ONE}": [\n'
        f'            "{FLASH}",\n'
        f'            "{PRO}"\n'
        "        ],\n"
        f'        "{TWO}": [\n'
        f'            "{FLASH}"\n'
        "        ]\n"
        "    }\n"
        "}\n"
    )


@pytest.mark.django_db
def test_an_export_without_usage_has_all_four_fields() -> None:
    content = json.loads(export_usage(DAY, NOON))

    assert content == {"date": "2026-11-24", "counts": {}, "model_counts": {}, "exhausted_keys": {}}
    assert list(content) == ["date", "counts", "model_counts", "exhausted_keys"]


@pytest.mark.django_db
def test_an_export_writes_other_alphabets_as_they_are() -> None:
    add_keys([ONE], NOON)
    take_over({"date": "2026-11-24", "counts": {ONE: 1}, "model_counts": {ONE: {"模型-ü": 1}}})

    assert '"模型-ü": 1' in export_usage(DAY, NOON)


@pytest.mark.django_db
@pytest.mark.parametrize("day", ["2026-11-24", "2026-11-20", "2026-11-01", "2026-03-08"])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_imported_comes_out_again(seed: int, day: str) -> None:
    chance = random.Random(seed)
    secrets = [fake_secret(f"key{number}") for number in range(6)]
    models = [FLASH, PRO, "gemini-embedding-001"]
    model_counts = {
        secret: {model: chance.randint(1, 10**6) for model in sorted(chance.sample(models, chance.randint(1, 3)))}
        for secret in secrets
    }
    content = {
        "date": day,
        "counts": {secret: sum(counts.values()) + chance.choice([0, 7]) for secret, counts in model_counts.items()},
        "model_counts": model_counts,
        "exhausted_keys": {secret: sorted(chance.sample(models, 2)) for secret in secrets[::2]},
    }

    take_over(content)

    assert export_usage(date.fromisoformat(day), NOON) == json.dumps(content, indent=4) + "\n"


@pytest.mark.django_db
def test_a_refusal_without_an_answer_counts_nothing() -> None:
    add_keys([ONE], NOON)
    DailyUsage.objects.create(key=ApiKey.objects.get(), model_name=FLASH, day=DAY, refusals=4)

    assert json.loads(export_usage(DAY, NOON))["counts"] == {}


@pytest.mark.django_db
def test_today_tells_who_is_exhausted_now_and_a_past_day_who_was() -> None:
    add_keys([ONE, TWO], NOON)
    one, two = ApiKey.objects.order_by("id")
    yesterday = NOON - timedelta(days=1)
    events = [
        (one, FLASH, "day", yesterday, yesterday + timedelta(hours=12)),
        (one, PRO, "minute", yesterday, yesterday + timedelta(minutes=1)),
        (two, FLASH, "day", yesterday, NOON + timedelta(hours=1)),
        (two, PRO, "none", yesterday - timedelta(days=9), None),
    ]
    for key, model_name, window, since, until in events:
        event = {"key": key, "project": key.project, "model_name": model_name, "window": window}
        ExhaustionEvent.objects.create(**event, since=since, until=until)

    today = json.loads(export_usage(DAY, NOON))["exhausted_keys"]
    day_before = json.loads(export_usage(DAY - timedelta(days=1), NOON))["exhausted_keys"]

    assert today == {TWO: [FLASH, PRO]}
    assert day_before == {ONE: [FLASH], TWO: [FLASH]}


@pytest.mark.django_db
def test_deleted_keys_are_not_exported() -> None:
    add_keys([ONE, TWO], NOON)
    take_over(NEWER)
    ApiKey.objects.filter(secret=ONE).forget(NOON)

    content = json.loads(export_usage(DAY, NOON))

    assert list(content["counts"]) == list(content["exhausted_keys"]) == [TWO]


@pytest.mark.django_db
def test_an_export_asks_no_more_for_many_keys(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    secrets = [fake_secret(f"key{number}") for number in range(30)]
    take_over({"date": "2026-11-24", "counts": {ONE: 5}, "exhausted_keys": {ONE: [FLASH]}})
    with CaptureQueriesContext(connection) as asked:
        export_usage(DAY, NOON)
    take_over(
        {
            "date": "2026-11-24",
            "counts": dict.fromkeys(secrets, 5),
            "exhausted_keys": {secret: [FLASH] for secret in secrets},
        }
    )

    with django_assert_num_queries(len(asked)):
        assert len(json.loads(export_usage(DAY, NOON))["counts"]) == 31
