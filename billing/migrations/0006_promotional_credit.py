import django.db.models.deletion
import django.db.models.expressions
from django.conf import settings
from django.db import migrations, models

# What was granted before is credit without a date. What was charged until now came from it first, the oldest grant first.
LOTS = """
WITH funded AS (
    SELECT w.account_id, coalesce(sum(p.amount_nanousd) FILTER (WHERE t.kind <> 'usage'), 0) - w.balance_nanousd AS charged
    FROM billing_wallet w
    LEFT JOIN billing_ledgeraccount l ON l.account_id = w.account_id AND l.kind = 'customer_credits'
    LEFT JOIN billing_posting p ON p.ledger_account_id = l.id
    LEFT JOIN billing_ledgertransaction t ON t.id = p.transaction_id
    GROUP BY w.account_id, w.balance_nanousd
), attributed AS (
    UPDATE billing_wallet w SET attributed_nanousd = f.charged
    FROM funded f WHERE f.account_id = w.account_id AND f.charged <> 0
), granted AS (
    SELECT t.id, l.account_id, p.amount_nanousd, t.description, t.created_at,
        sum(p.amount_nanousd) OVER (PARTITION BY l.account_id ORDER BY t.id) AS until_here
    FROM billing_ledgertransaction t
    JOIN billing_posting p ON p.transaction_id = t.id AND p.amount_nanousd > 0
    JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id AND l.kind = 'customer_credits'
    WHERE t.kind = 'promotion'
), lots AS (
    SELECT g.*, greatest(0, least(g.amount_nanousd, g.until_here - f.charged)) AS remaining
    FROM granted g JOIN funded f USING (account_id)
)
INSERT INTO billing_promotionalcredit
    (account_id, transaction_id, amount_nanousd, remaining_nanousd, expired_nanousd, reason, granted_at, closed_at)
SELECT account_id, id, amount_nanousd, remaining, 0, description, created_at, CASE WHEN remaining = 0 THEN now() END
FROM lots ORDER BY id;
"""


class Migration(migrations.Migration):
    """Granted credit in lots, of which each may expire."""

    dependencies = [
        ("accounts", "0001_initial"),
        ("billing", "0005_stripe_and_webhooks"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="wallet",
            name="attributed_nanousd",
            field=models.BigIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AlterField(
            model_name="ledgertransaction",
            name="kind",
            field=models.CharField(
                choices=[
                    ("topup", "Top-up"),
                    ("usage", "Usage"),
                    ("promotion", "Credit granted"),
                    ("expiry", "Credit expired"),
                    ("loss", "Platform loss"),
                ],
                max_length=16,
            ),
        ),
        migrations.CreateModel(
            name="PromotionalCredit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("amount_nanousd", models.BigIntegerField()),
                ("remaining_nanousd", models.BigIntegerField()),
                ("expired_nanousd", models.BigIntegerField(default=0)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("reason", models.CharField(max_length=200)),
                ("granted_at", models.DateTimeField()),
                ("noticed_at", models.DateTimeField(blank=True, null=True)),
                ("closed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="promotional_credits",
                        to="accounts.account",
                    ),
                ),
                (
                    "granted_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "transaction",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="lot",
                        to="billing.ledgertransaction",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "promotional credit",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("closed_at", None)), fields=["account"], name="promotion_open"
                    ),
                    models.Index(
                        condition=models.Q(("closed_at", None), ("expires_at__isnull", False)),
                        fields=["expires_at"],
                        name="promotion_expiring",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("amount_nanousd__gt", 0),
                            ("expired_nanousd__gte", 0),
                            ("remaining_nanousd__gte", 0),
                            (
                                "amount_nanousd__gte",
                                django.db.models.expressions.CombinedExpression(
                                    models.F("remaining_nanousd"), "+", models.F("expired_nanousd")
                                ),
                            ),
                        ),
                        name="promotion_within_its_amount",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("closed_at__isnull", False), ("remaining_nanousd", 0)),
                            models.Q(("closed_at", None), ("remaining_nanousd__gt", 0)),
                            _connector="OR",
                        ),
                        name="promotion_closed_iff_nothing_remains",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("expired_nanousd", 0), ("expires_at__isnull", False), _connector="OR"
                        ),
                        name="promotion_without_date_never_expires",
                    ),
                ],
            },
        ),
        migrations.RunSQL(LOTS, migrations.RunSQL.noop),
    ]
