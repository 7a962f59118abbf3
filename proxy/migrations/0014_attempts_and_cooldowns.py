from django.db import migrations


class Migration(migrations.Migration):
    """Renames two columns to the usual terms."""

    dependencies = [("proxy", "0013_gemini_model")]

    operations = [
        migrations.RenameField(model_name="loggedrequest", old_name="tries", new_name="attempts"),
        migrations.RenameField(model_name="quota", old_name="rests_until", new_name="cooldown_until"),
    ]
