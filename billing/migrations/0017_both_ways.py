from django.db import migrations, models

# There was a setting that let tests empty the tables. They delete rows now, and nothing opens this.
TRUNCATE = """
CREATE OR REPLACE FUNCTION billing_refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is immutable: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
"""
TRUNCATE_BEFORE = """
CREATE OR REPLACE FUNCTION billing_refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('tollgate.may_truncate', true), '') <> 'yes' THEN
        RAISE EXCEPTION '% is immutable: % refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
"""
# What is left of a lot changes all day; that there is one does not.
FORWARD = """
CREATE TRIGGER promotion_stays BEFORE DELETE ON billing_promotionalcredit
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER promotion_kept BEFORE TRUNCATE ON billing_promotionalcredit
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER payment_report_immutable BEFORE UPDATE OR DELETE ON billing_paymentreport
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER payment_report_kept BEFORE TRUNCATE ON billing_paymentreport
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();
"""
REVERSE = """
DROP TRIGGER payment_report_kept ON billing_paymentreport;
DROP TRIGGER payment_report_immutable ON billing_paymentreport;
DROP TRIGGER promotion_kept ON billing_promotionalcredit;
DROP TRIGGER promotion_stays ON billing_promotionalcredit;
"""
# Of what was paid before, the events that are kept say most. Where there is none, the top-up itself has to be believed.
REPORTS = """
INSERT INTO billing_paymentreport (provider, payment, reference, amount_cents, currency, said_at, is_assumed)
SELECT u.provider, coalesce(nullif(u.provider_payment, ''), u.provider_reference), u.provider_reference,
    u.total_nanousd / 10000000, 'usd', coalesce(e.received_at, u.paid_at), e.received_at IS NULL
FROM billing_topup u
LEFT JOIN LATERAL (
    SELECT min(received_at) AS received_at FROM billing_webhookevent w
    WHERE w.provider = u.provider AND w.outcome = 'done' AND w.news->>'kind' = 'PaymentArrived'
        AND w.news->>'reference' = u.provider_reference
) AS e ON true
WHERE u.status = 'paid';
"""


class Migration(migrations.Migration):
    """The audit compares both ways: grants with lots, and paid top-ups with what their providers have said."""

    dependencies = [("billing", "0016_the_operators_are_owed_mails")]

    operations = [
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
                    ("adjustments", "Adjustments"),
                    ("refunds", "Refunds"),
                    ("disputes", "Disputes"),
                    ("platform_loss", "Platform loss"),
                ],
                max_length=20,
            ),
        ),
        migrations.AddField(
            model_name="promotionalcredit",
            name="charged_before_nanousd",
            field=models.BigIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.CreateModel(
            name="PaymentReport",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("provider", models.CharField(max_length=20)),
                ("payment", models.CharField(max_length=120)),
                ("reference", models.CharField(blank=True, max_length=120)),
                ("amount_cents", models.BigIntegerField()),
                ("currency", models.CharField(max_length=3)),
                ("said_at", models.DateTimeField()),
                ("is_assumed", models.BooleanField(default=False)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("provider", "payment", "reference", "amount_cents", "currency"),
                        name="payment_report_once",
                    )
                ],
            },
        ),
        migrations.RunSQL(REPORTS, migrations.RunSQL.noop),
        migrations.RunSQL(TRUNCATE, TRUNCATE_BEFORE),
        migrations.RunSQL(FORWARD, REVERSE),
    ]
