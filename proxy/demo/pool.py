"""Writes the sample pool: keys, projects, quotas, bad and disabled keys, and exhausted quotas."""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

from proxy.demo.plan import MODELS, DemoKey, DemoProject, Plan, projects
from proxy.demo.usage import ExhaustedQuota
from proxy.gemini.refusals import Fault, Refusal, Window
from proxy.models import ApiKey, ExhaustionEvent, GeminiModel, Quota
from proxy.pool.adding import add_keys

_FAULTS = [
    (Fault.LEAKED, "Your API key was reported as leaked. Please use another API key.", 2),
    (Fault.INVALID, "API key not valid. Please pass a valid API key.", 11),
]  # and for how many days
_ONE_DISABLED_OF = 13
_DISABLED_FOR_DAYS = 20
# The service checks bad keys with Google now and then. It must not send it these.
_NEVER_CHECKED = timedelta(days=36_500)


def make_pool(plan: Plan, today: date, moment: datetime, rng: random.Random) -> list[DemoProject]:
    """Create keys, projects and models. Return the projects with their database IDs."""
    for model_name in MODELS:
        GeminiModel.objects.begin(model_name)
    pool = projects(plan, rng)
    for project in pool:
        add_keys([key.secret for key in project.keys], moment, project=project.name)
    keys = {key.secret: key for project in pool for key in project.keys}
    rows = list(ApiKey.objects.all())
    begin = today - timedelta(days=plan.days - 1)
    for row in rows:
        key = keys[str(row.secret)]
        key.id, row.name = row.pk, key.name
        is_late = rng.random() < plan.late
        key.first = begin + timedelta(days=int(plan.days * rng.uniform(0.05, 0.6)) if is_late else 0)
        row.created_at = moment - (today - key.first)
    ApiKey.objects.bulk_update(rows, ["name", "created_at"], batch_size=100)
    project_ids = {row.pk: row.project_id for row in rows}
    for project in pool:
        project.id = project_ids[project.keys[0].id]
    _retire(list(keys.values()), today, moment)
    return pool


def _retire(keys: Sequence[DemoKey], today: date, moment: datetime) -> None:
    """Mark some keys bad and disable some. They have no usage since then."""
    bad = keys[4 : 4 + len(_FAULTS)]
    for key, (fault, reason, days) in zip(bad, _FAULTS, strict=False):
        key.last = today - timedelta(days=days)
        row = ApiKey.objects.filter(id=key.id)
        row.mark_bad(fault, reason, moment - timedelta(days=days))
        row.update(next_check=moment + _NEVER_CHECKED)
    disabled = keys[9::_ONE_DISABLED_OF]
    for key in disabled:
        key.last = today - timedelta(days=_DISABLED_FOR_DAYS)
    ApiKey.objects.filter(id__in=[key.id for key in disabled]).disable(moment)


def write_exhaustion(exhausted: Iterable[ExhaustedQuota], moment: datetime) -> None:
    """Write the exhaustion events of all days. Those that have not ended yet take effect."""
    past: list[ExhaustionEvent] = []
    for event in exhausted:
        if event.until > moment:
            key = ApiKey.objects.select_related("project").get(id=event.key_id)
            refusal = Refusal(event.window, limit=event.limit)
            ExhaustionEvent.objects.record(key, event.model_name, refusal, event.since, event.until)
        else:
            past.append(
                ExhaustionEvent(
                    key_id=event.key_id,
                    project_id=event.project_id,
                    model_name=event.model_name,
                    window=event.window,
                    limit=event.limit,
                    since=event.since,
                    until=event.until,
                )
            )
    ExhaustionEvent.objects.bulk_create(past, batch_size=500)


def write_open_ended_exhaustion(pool: Sequence[DemoProject], moment: datetime) -> None:
    """Make one project run out of credits, and deny one access to a model, until they are revived manually."""
    for project, model_name, window, hours in (
        (pool[len(pool) // 2], "", Window.CREDITS, 9),
        (pool[len(pool) // 3], "gemini-3-pro-preview", Window.NONE, 60),
    ):
        key = ApiKey.objects.select_related("project").get(id=project.keys[0].id)
        refusal = Refusal(window, limit=0 if window is Window.NONE else None)
        ExhaustionEvent.objects.record(key, model_name, refusal, moment - timedelta(hours=hours), None)


def write_quotas(
    pool: Sequence[DemoProject], counts: Mapping[tuple[int, str], int], today: date, moment: datetime
) -> None:
    """Write the known limits, and today's number of answers by project ID and model name."""
    for project in pool:
        for model_name in MODELS:
            limits = project.limits_of(model_name)
            used = counts.get((project.id, model_name), 0)
            learned = {f"learned_{name}": limit for name, limit in limits._asdict().items()}
            Quota.objects.filter(project=project.id, model_name=model_name).update(
                day=today, day_requests=used, **(learned if project.has_known_limits else {})
            )
    Quota.objects.recompute((project.id for project in pool), moment)
