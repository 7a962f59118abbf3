import django.db.models.deletion
from django.db import migrations, models

COPY = "INSERT INTO proxy_use (quota_id, tenth, requests, tokens) SELECT quota_id, tenth, requests, tokens FROM {}"


class Migration(migrations.Migration):

    dependencies = [
        ('proxy', '0008_key_checks'),
    ]

    operations = [
        # A primary key of several fields can only be made with its table.
        migrations.RenameModel('Use', 'OldUse'),
        migrations.CreateModel(
            name='Use',
            fields=[
                ('pk', models.CompositePrimaryKey('quota_id', 'tenth', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenth', models.BigIntegerField()),
                ('requests', models.IntegerField()),
                ('tokens', models.BigIntegerField()),
                ('quota', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='uses', to='proxy.quota')),
            ],
            options={
                'indexes': [models.Index(fields=['tenth'], name='use_by_tenth')],
            },
        ),
        migrations.RunSQL(COPY.format('proxy_olduse'), migrations.RunSQL.noop),
        migrations.DeleteModel('OldUse'),
    ]
