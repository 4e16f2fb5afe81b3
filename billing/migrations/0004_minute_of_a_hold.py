from django.db import migrations, models


class Migration(migrations.Migration):
    """What a running request counts as in its key's minute, for when Redis does not know."""

    dependencies = [("billing", "0003_upstream_health")]

    operations = [
        migrations.AddField(
            model_name="hold",
            name="minute_tokens",
            field=models.BigIntegerField(default=0),
        ),
    ]
