import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """E-mails about allowances and losses are owed until they are out."""

    dependencies = [
        ("accounts", "0001_initial"),
        ("usage", "0011_minute_gaps"),
    ]

    operations = [
        migrations.AddField(
            model_name="dailyallowance",
            name="mail_due_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AlterField(
            model_name="dailyallowance",
            name="warned_at",
            field=models.DateTimeField(help_text="When 80 % was reached.", null=True),
        ),
        migrations.AlterField(
            model_name="dailyallowance",
            name="exhausted_at",
            field=models.DateTimeField(help_text="When 100 % was reached.", null=True),
        ),
        migrations.CreateModel(
            name="LossToTell",
            fields=[
                ("record_id", models.UUIDField(primary_key=True, serialize=False)),
                ("amount_nanousd", models.BigIntegerField()),
                ("operators_mail_due_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "account",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.account",
                    ),
                ),
            ],
        ),
    ]
