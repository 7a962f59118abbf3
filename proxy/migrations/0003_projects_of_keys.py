from django.db import migrations


def fill(apps, schema_editor):
    """Give every key its project: those of one name share it, those without a name have one each."""
    Project, ApiKey, ExhaustionEvent = (apps.get_model("proxy", name) for name in ("Project", "ApiKey", "ExhaustionEvent"))
    for name in ApiKey.objects.exclude(project_name="").values_list("project_name", flat=True).distinct():
        project = Project.objects.create(name=name)
        ApiKey.objects.filter(project_name=name).update(project=project)
    for key in ApiKey.objects.filter(project=None):
        ApiKey.objects.filter(pk=key.pk).update(project=Project.objects.create())
    for event in ExhaustionEvent.objects.select_related("key"):
        named = Project.objects.filter(name=event.project_name).exclude(name="").first()
        if event.project_name and named is None:  # the keys have moved on since
            named = Project.objects.create(name=event.project_name)
        ExhaustionEvent.objects.filter(pk=event.pk).update(project=named or event.key.project)


class Migration(migrations.Migration):
    dependencies = [("proxy", "0002_project")]

    operations = [migrations.RunPython(fill, elidable=True)]
