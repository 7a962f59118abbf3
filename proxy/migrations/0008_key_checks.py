from django.db import migrations, models


class Migration(migrations.Migration):
    """When a key was used, when a bad one is asked about again, and input tokens as a window of their own."""

    dependencies = [("proxy", "0007_remove_place")]

    operations = [
        migrations.AddField("apikey", "last_used", models.DateTimeField(editable=False, help_text="To the minute.", null=True)),
        migrations.AddField("apikey", "next_check", models.DateTimeField(editable=False, help_text="When a bad key is asked about again.", null=True)),
        migrations.AddIndex("apikey", models.Index(condition=~models.Q(fault=""), fields=["next_check"], name="key_checks")),
        migrations.AlterField(
            "exhaustionevent",
            "window",
            models.CharField(choices=[("day", "requests or tokens a day"), ("minute", "requests a minute"), ("tokens", "input tokens a minute"), ("none", "the project may not use this model"), ("credits", "credits spent, or a spending cap"), ("unknown", "no reason given")], max_length=10),
        ),
    ]
