import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Every key has a project, and the name is the project's."""

    dependencies = [("proxy", "0003_projects_of_keys")]

    operations = [
        migrations.RemoveField("apikey", "project_name"),
        migrations.RemoveField("exhaustionevent", "project_name"),
        migrations.AlterField(
            "apikey",
            "project",
            models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="keys", to="proxy.project"),
        ),
        migrations.AlterField(
            "exhaustionevent",
            "project",
            models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="exhaustion", to="proxy.project"),
        ),
    ]
