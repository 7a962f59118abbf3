import django.db.models.expressions
import django.db.models.functions.comparison
from django.db import migrations, models


class Migration(migrations.Migration):
    """A generated column cannot be altered: the order of rotation goes, and comes back with the new expression."""

    dependencies = [
        ('proxy', '0011_days_of_history'),
    ]

    operations = [
        migrations.RemoveIndex(model_name='quota', name='quota_rotation'),
        migrations.RemoveField(model_name='quota', name='room'),
        migrations.RemoveField(model_name='quota', name='most_in_a_day'),
        migrations.RemoveField(model_name='quota', name='probing_until'),
        migrations.AddField(
            model_name='quota',
            name='room',
            field=models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Least(django.db.models.expressions.CombinedExpression(django.db.models.functions.comparison.Coalesce(django.db.models.functions.comparison.Coalesce('requests_per_minute', 'learned_requests_per_minute'), models.F('most_in_a_minute')), '-', models.F('minute_requests')), django.db.models.functions.comparison.Coalesce(django.db.models.expressions.CombinedExpression(django.db.models.functions.comparison.Coalesce('requests_per_day', 'learned_requests_per_day'), '-', models.F('day_requests')), 1099511627776), django.db.models.functions.comparison.Coalesce(django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(django.db.models.functions.comparison.Coalesce('input_tokens_per_minute', 'learned_input_tokens_per_minute'), '-', models.F('minute_tokens')), '*', models.F('minute_requests')), '/', django.db.models.functions.comparison.NullIf(models.F('minute_tokens'), 0)), 1099511627776)), output_field=models.BigIntegerField()),
        ),
        migrations.AddIndex(
            model_name='quota',
            index=models.Index(models.F('model_name'), models.OrderBy(models.F('room'), descending=True), models.F('last_used'), condition=models.Q(('is_open', True)), name='quota_rotation'),
        ),
    ]
