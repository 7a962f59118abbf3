from django.db import migrations


class Migration(migrations.Migration):
    """Quotas have taken over what places were for."""

    dependencies = [("proxy", "0006_quotas_of_projects")]

    operations = [migrations.DeleteModel("Place")]
