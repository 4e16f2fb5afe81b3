import django.db.models.deletion
import django.db.models.expressions
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

# A receipt stays as it was issued; only the e-mail with it may be marked as sent.
FREEZE_RECEIPTS = """
CREATE FUNCTION billing_freeze_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR to_jsonb(NEW) - 'mail_due_at' IS DISTINCT FROM to_jsonb(OLD) - 'mail_due_at' THEN
        RAISE EXCEPTION 'a receipt is immutable: % refused', TG_OP USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER receipt_immutable BEFORE UPDATE OR DELETE ON billing_receipt
    FOR EACH ROW EXECUTE FUNCTION billing_freeze_receipt();
"""
THAW_RECEIPTS = """
DROP TRIGGER receipt_immutable ON billing_receipt;
DROP FUNCTION billing_freeze_receipt();
"""

# What was paid before there were receipts gets one, in the order of payment. Nobody is mailed about it.
ISSUE_RECEIPTS = """
INSERT INTO billing_receipt (topup_id, account_id, year, number_in_year, issued_at, buyer, seller, credit_nanousd,
    fee_nanousd, provider_name, payment, mail_due_at)
SELECT t.id, t.account_id, date_part('year', t.paid_at AT TIME ZONE 'UTC'),
    row_number() OVER (PARTITION BY date_part('year', t.paid_at AT TIME ZONE 'UTC') ORDER BY t.paid_at, t.id),
    t.paid_at, jsonb_build_object('name', a.name, 'address', '[]'::jsonb, 'tax_id', '', 'account', a.name),
    '{"name": "Tollgate", "address": [], "tax_id": ""}', t.credit_nanousd, t.fee_nanousd, initcap(t.provider),
    coalesce(nullif(t.provider_payment, ''), t.provider_reference), NULL
FROM billing_topup t JOIN accounts_account a ON a.id = t.account_id WHERE t.status = 'paid'
ORDER BY t.paid_at, t.id;
INSERT INTO billing_receiptnumbers (year, issued) SELECT year, count(*) FROM billing_receipt GROUP BY year;
"""


class Migration(migrations.Migration):
    """Who buys, receipts with a number, refunds, disputes, and the company's name for a payment."""

    dependencies = [
        ("accounts", "0001_initial"),
        ("billing", "0006_promotional_credit"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BillingDetails",
            fields=[
                (
                    "account",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="billing_details",
                        serialize=False,
                        to="accounts.account",
                    ),
                ),
                (
                    "company_name",
                    models.CharField(blank=True, max_length=120, verbose_name="Company or name"),
                ),
                ("address_line_1", models.CharField(blank=True, max_length=120, verbose_name="Address")),
                (
                    "address_line_2",
                    models.CharField(blank=True, max_length=120, verbose_name="Address, second line"),
                ),
                ("postal_code", models.CharField(blank=True, max_length=20, verbose_name="Postal code")),
                ("city", models.CharField(blank=True, max_length=80, verbose_name="City")),
                ("region", models.CharField(blank=True, max_length=80, verbose_name="State or region")),
                ("country", models.CharField(blank=True, max_length=80, verbose_name="Country")),
                (
                    "tax_id",
                    models.CharField(
                        blank=True,
                        help_text="As VAT number, EIN or GSTIN.",
                        max_length=40,
                        verbose_name="Tax id",
                    ),
                ),
                (
                    "receipts_email",
                    models.EmailField(
                        blank=True,
                        help_text="Empty: receipts go to the owners and admins of the account.",
                        max_length=254,
                        verbose_name="E-mail for receipts",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "billing details",
            },
        ),
        migrations.CreateModel(
            name="ReceiptNumbers",
            fields=[
                ("year", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("issued", models.PositiveIntegerField()),
            ],
        ),
        migrations.AlterField(
            model_name="ledgeraccount",
            name="kind",
            field=models.CharField(
                choices=[
                    ("customer_credits", "Customer credits"),
                    ("cash_clearing", "Cash clearing"),
                    ("fee_revenue", "Fee revenue"),
                    ("usage_revenue", "Usage revenue"),
                    ("promotions", "Promotions"),
                    ("refunds", "Refunds"),
                    ("disputes", "Disputes"),
                    ("platform_loss", "Platform loss"),
                ],
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="ledgertransaction",
            name="kind",
            field=models.CharField(
                choices=[
                    ("topup", "Top-up"),
                    ("usage", "Usage"),
                    ("promotion", "Credit granted"),
                    ("adjustment", "Adjustment"),
                    ("expiry", "Credit expired"),
                    ("refund", "Refund"),
                    ("dispute", "Dispute"),
                    ("loss", "Platform loss"),
                ],
                max_length=16,
            ),
        ),
        migrations.CreateModel(
            name="Dispute",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("mail_due_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("provider_dispute", models.CharField(max_length=120)),
                ("reason", models.CharField(max_length=120)),
                (
                    "status",
                    models.CharField(
                        choices=[("open", "Open"), ("won", "Won"), ("lost", "Lost")], max_length=8
                    ),
                ),
                ("amount_nanousd", models.BigIntegerField()),
                ("frozen_nanousd", models.BigIntegerField(default=0)),
                ("fee_nanousd", models.BigIntegerField(default=0)),
                ("loss_nanousd", models.BigIntegerField(default=0)),
                ("bookings", models.PositiveSmallIntegerField(default=0)),
                ("opened_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("respond_by", models.DateTimeField(blank=True, null=True)),
                ("closed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="disputes",
                        to="accounts.account",
                    ),
                ),
                (
                    "topup",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="disputes",
                        to="billing.topup",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["account", "-id"], name="dispute_by_account")],
                "constraints": [
                    models.UniqueConstraint(fields=("topup", "provider_dispute"), name="dispute_once"),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("amount_nanousd__gt", 0),
                            ("frozen_nanousd__gte", 0),
                            ("fee_nanousd__gte", 0),
                            ("loss_nanousd__gte", 0),
                        ),
                        name="dispute_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("fee_nanousd", 0),
                                ("frozen_nanousd", 0),
                                ("loss_nanousd", 0),
                                ("status", "won"),
                            ),
                            models.Q(
                                models.Q(("status", "won"), _negated=True),
                                (
                                    "amount_nanousd",
                                    django.db.models.expressions.CombinedExpression(
                                        django.db.models.expressions.CombinedExpression(
                                            models.F("frozen_nanousd"), "+", models.F("fee_nanousd")
                                        ),
                                        "+",
                                        models.F("loss_nanousd"),
                                    ),
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="dispute_amount_is_shared_out_unless_won",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("closed_at", None), ("status", "open")),
                            models.Q(
                                models.Q(("status", "open"), _negated=True), ("closed_at__isnull", False)
                            ),
                            _connector="OR",
                        ),
                        name="dispute_closed_at_iff_closed",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Receipt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("mail_due_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("year", models.PositiveSmallIntegerField()),
                ("number_in_year", models.PositiveIntegerField()),
                ("issued_at", models.DateTimeField()),
                ("buyer", models.JSONField()),
                ("seller", models.JSONField()),
                ("credit_nanousd", models.BigIntegerField()),
                ("fee_nanousd", models.BigIntegerField()),
                ("provider_name", models.CharField(max_length=60)),
                ("payment", models.CharField(max_length=120)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="receipts",
                        to="accounts.account",
                    ),
                ),
                (
                    "topup",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="receipt",
                        to="billing.topup",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("mail_due_at__isnull", False)),
                        fields=["mail_due_at"],
                        name="receipt_mail_due",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("year", "number_in_year"), name="receipt_number_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Refund",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("mail_due_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("reference", models.CharField(max_length=120, unique=True)),
                ("provider_refund", models.CharField(blank=True, max_length=120, null=True)),
                ("credit_nanousd", models.BigIntegerField()),
                ("fee_nanousd", models.BigIntegerField()),
                ("loss_nanousd", models.BigIntegerField(default=0)),
                ("bookings", models.PositiveSmallIntegerField(default=1)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "On its way"),
                            ("succeeded", "Given back"),
                            ("failed", "Failed"),
                        ],
                        default="pending",
                        max_length=16,
                    ),
                ),
                ("reason", models.CharField(max_length=200)),
                ("message", models.CharField(blank=True, max_length=300)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("asked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refunds",
                        to="accounts.account",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "topup",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refunds",
                        to="billing.topup",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["account", "-id"], name="refund_by_account"),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["status", "asked_at"],
                        name="refund_pending",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("topup", "provider_refund"), name="refund_once_per_provider_refund"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("credit_nanousd__gte", 0),
                            ("fee_nanousd__gte", 0),
                            ("loss_nanousd__gte", 0),
                            models.Q(
                                ("credit_nanousd__gt", 0),
                                ("fee_nanousd__gt", 0),
                                ("loss_nanousd__gt", 0),
                                _connector="OR",
                            ),
                        ),
                        name="refund_gives_something_back",
                    ),
                ],
            },
        ),
        # The triggers first: a table with new rows takes none in the same transaction.
        migrations.RunSQL(FREEZE_RECEIPTS, THAW_RECEIPTS),
        migrations.RunSQL(ISSUE_RECEIPTS, migrations.RunSQL.noop),
    ]
