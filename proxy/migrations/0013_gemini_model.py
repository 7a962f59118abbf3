from django.db import migrations


class Migration(migrations.Migration):
    """Renames the model Rotation. The table keeps its name, so nothing is written but the content type."""

    dependencies = [("proxy", "0012_proven_room")]

    operations = [
        migrations.AlterModelTable(name="rotation", table="proxy_rotation"),
        migrations.RenameModel(old_name="Rotation", new_name="GeminiModel"),
    ]
