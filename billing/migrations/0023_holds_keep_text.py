from django.db import migrations, models


class Migration(migrations.Migration):
    """What a hold keeps of its request is written by every request and hardly ever read: as text."""

    dependencies = [("billing", "0022_events_end_once")]

    operations = [
        migrations.AlterField(
            model_name="hold",
            name="request",
            field=models.TextField(default="{}"),
        ),
    ]
