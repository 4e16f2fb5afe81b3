import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models


class Migration(migrations.Migration):
    """Credit that is taken when requests leave it, and what lots of promotional credit lose and may get again."""

    dependencies = [
        ("billing", "0013_receipts_are_kept"),
    ]

    operations = [
        migrations.CreateModel(
            name="WithheldCredit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("amount_nanousd", models.BigIntegerField()),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="dispute",
            name="dispute_not_negative",
        ),
        migrations.RemoveConstraint(
            model_name="wallet",
            name="wallet_held_within_balance",
        ),
        migrations.AddField(
            model_name="dispute",
            name="to_take_nanousd",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="refund",
            name="to_take_nanousd",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="wallet",
            name="to_take_nanousd",
            field=models.BigIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AddIndex(
            model_name="dispute",
            index=models.Index(
                condition=models.Q(("to_take_nanousd__gt", 0)), fields=["account"], name="dispute_to_take"
            ),
        ),
        migrations.AddIndex(
            model_name="refund",
            index=models.Index(
                condition=models.Q(("to_take_nanousd__gt", 0)), fields=["account"], name="refund_to_take"
            ),
        ),
        migrations.AddIndex(
            model_name="wallet",
            index=models.Index(
                condition=models.Q(("to_take_nanousd__gt", 0)), fields=["account"], name="wallet_to_take"
            ),
        ),
        migrations.AddConstraint(
            model_name="dispute",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("amount_nanousd__gt", 0),
                    ("frozen_nanousd__gte", 0),
                    ("fee_nanousd__gte", 0),
                    ("to_take_nanousd__gte", 0),
                    ("loss_nanousd__gte", models.F("to_take_nanousd")),
                ),
                name="dispute_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("to_take_nanousd__gte", 0),
                    ("to_take_nanousd__lte", models.F("loss_nanousd")),
                    models.Q(
                        ("to_take_nanousd", 0), models.Q(("status", "failed"), _negated=True), _connector="OR"
                    ),
                ),
                name="refund_takes_later_what_was_lost",
            ),
        ),
        migrations.AddConstraint(
            model_name="wallet",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "held_nanousd__lte",
                        django.db.models.expressions.CombinedExpression(
                            models.F("balance_nanousd"), "+", models.F("to_take_nanousd")
                        ),
                    )
                ),
                name="wallet_held_within_balance",
            ),
        ),
        migrations.AddConstraint(
            model_name="wallet",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("to_take_nanousd__gte", 0), ("to_take_nanousd__lte", models.F("held_nanousd"))
                ),
                name="wallet_to_take_is_held",
            ),
        ),
        migrations.AddField(
            model_name="withheldcredit",
            name="dispute",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="withheld",
                to="billing.dispute",
            ),
        ),
        migrations.AddField(
            model_name="withheldcredit",
            name="lot",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="withheld",
                to="billing.promotionalcredit",
            ),
        ),
        migrations.AddField(
            model_name="withheldcredit",
            name="refund",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="withheld",
                to="billing.refund",
            ),
        ),
        migrations.AddConstraint(
            model_name="withheldcredit",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_nanousd__gt", 0)), name="withheld_credit_is_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="withheldcredit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("dispute", None), ("refund__isnull", False)),
                    models.Q(("dispute__isnull", False), ("refund", None)),
                    _connector="OR",
                ),
                name="withheld_credit_of_a_dispute_or_a_refund",
            ),
        ),
    ]
