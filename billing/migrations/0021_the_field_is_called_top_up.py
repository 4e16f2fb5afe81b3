"""Names alone: the admin reads them."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0020_what_stays"),
    ]

    operations = [
        migrations.AlterField(
            model_name="dispute",
            name="topup",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="disputes",
                to="billing.topup",
                verbose_name="top-up",
            ),
        ),
        migrations.AlterField(
            model_name="receipt",
            name="topup",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="receipt",
                to="billing.topup",
                verbose_name="top-up",
            ),
        ),
        migrations.AlterField(
            model_name="refund",
            name="topup",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="refunds",
                to="billing.topup",
                verbose_name="top-up",
            ),
        ),
        migrations.AlterField(
            model_name="unmatchedpayment",
            name="topup",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.topup",
                verbose_name="top-up",
            ),
        ),
    ]
