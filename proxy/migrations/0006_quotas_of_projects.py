from collections import defaultdict

from django.db import migrations
from django.db.models import Q
from django.utils import timezone


def fill(apps, schema_editor):
    """Begin the rotations that there were, with the quotas of all projects as their keys and exhaustion say."""
    Place, Project, ExhaustionEvent, Rotation, Quota = (
        apps.get_model("proxy", name) for name in ("Place", "Project", "ExhaustionEvent", "Rotation", "Quota")
    )
    moment = timezone.now()
    names = sorted(set(Place.objects.values_list("model_name", flat=True)) | {""})
    Rotation.objects.bulk_create(Rotation(model_name=name, is_known=True) for name in names if name)
    is_usable = Q(keys__is_enabled=True, keys__fault="", keys__deleted_at=None)
    usable = set(Project.objects.filter(is_usable).values_list("id", flat=True))
    rests = defaultdict(list)
    for event in ExhaustionEvent.objects.filter(Q(until=None) | Q(until__gt=moment)):
        rests[event.project_id].append(event)
    quotas = []
    for project in Project.objects.values_list("id", flat=True):
        for name in names:
            untils = [event.until for event in rests[project] if event.model_name in ("", name)]
            is_barred = project not in usable or None in untils
            until = max((until for until in untils if until), default=None)
            quotas.append(
                Quota(
                    project_id=project, model_name=name, is_barred=is_barred, is_open=not (is_barred or until),
                    rests_until=until, opens_at=None if is_barred else until,
                )
            )
    Quota.objects.bulk_create(quotas, batch_size=500)


class Migration(migrations.Migration):
    dependencies = [("proxy", "0005_quota")]

    operations = [migrations.RunPython(fill, elidable=True)]
