from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0014_credit_to_take")]

    operations = [
        migrations.AddField(
            model_name="autotopup",
            name="told_topup_id",
            field=models.BigIntegerField(default=0, editable=False),
        ),
        migrations.AddIndex(
            model_name="topup",
            index=models.Index(
                condition=models.Q(("status__in", ["failed", "canceled"])),
                fields=["created_at"],
                name="topup_closed",
            ),
        ),
    ]
