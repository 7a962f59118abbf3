import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Projects as rows, beside their names."""

    dependencies = [("proxy", "0001_pool")]

    operations = [
        migrations.CreateModel(
            name="Project",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(blank=True, help_text="Its number or id, as Google shows it, or any name: keys of one project share its quotas.", max_length=100)),
            ],
            options={
                "constraints": [models.UniqueConstraint(condition=~models.Q(name=""), fields=("name",), name="one_project_of_a_name")],
            },
        ),
        migrations.RenameField("apikey", "project", "project_name"),
        migrations.RenameField("exhaustionevent", "project", "project_name"),
        migrations.AddField(
            "apikey",
            "project",
            models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="keys", to="proxy.project"),
        ),
        migrations.AddField(
            "exhaustionevent",
            "project",
            models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="exhaustion", to="proxy.project"),
        ),
    ]
