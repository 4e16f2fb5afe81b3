from django.db import migrations, models

# Of what was said and closed before, the rows themselves have to be believed.
REFUNDS = """
INSERT INTO billing_refundreport (reference, refund, status, said_at, is_assumed)
SELECT reference, provider_refund, status, coalesce(ended_at, created_at), true
FROM billing_refund WHERE provider_refund IS NOT NULL;
"""
CLOSINGS = """
INSERT INTO billing_paymentclosing (provider, payment, closed_at, operator_id, note)
SELECT provider, payment, resolved_at, resolved_by_id, note
FROM billing_unmatchedpayment WHERE resolved_at IS NOT NULL AND topup_id IS NULL;
"""
# What is left of a lot falls all day, and rises only by what it has lost to a refund or a dispute. What was granted, to
# whom and until when stays. What was told of money stays, and an unmatched payment is resolved once. Postings come with
# their transaction, before the head of the chain stands on it.
FORWARD = """
CREATE TRIGGER promotion_terms_stay BEFORE UPDATE ON billing_promotionalcredit
    FOR EACH ROW WHEN (
        (NEW.account_id, NEW.transaction_id, NEW.amount_nanousd, NEW.charged_before_nanousd, NEW.expires_at, NEW.granted_at)
        IS DISTINCT FROM
        (OLD.account_id, OLD.transaction_id, OLD.amount_nanousd, OLD.charged_before_nanousd, OLD.expires_at, OLD.granted_at)
        OR NEW.expired_nanousd < OLD.expired_nanousd
    ) EXECUTE FUNCTION billing_refuse_change();

CREATE FUNCTION billing_refuse_refilling() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.remaining_nanousd - OLD.remaining_nanousd > (
        SELECT coalesce(sum(amount_nanousd), 0) FROM billing_withheldcredit WHERE lot_id = NEW.id
    ) THEN
        RAISE EXCEPTION 'promotional credit % gets back more than was withheld of it', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER promotion_is_not_refilled BEFORE UPDATE ON billing_promotionalcredit
    FOR EACH ROW WHEN (NEW.remaining_nanousd > OLD.remaining_nanousd) EXECUTE FUNCTION billing_refuse_refilling();

CREATE TRIGGER unmatched_payment_stays BEFORE DELETE ON billing_unmatchedpayment
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER unmatched_payment_kept BEFORE TRUNCATE ON billing_unmatchedpayment
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER unmatched_payment_is_resolved_once BEFORE UPDATE ON billing_unmatchedpayment
    FOR EACH ROW WHEN (
        (NEW.provider, NEW.payment, NEW.reference, NEW.amount_cents, NEW.currency)
        IS DISTINCT FROM (OLD.provider, OLD.payment, OLD.reference, OLD.amount_cents, OLD.currency)
        OR OLD.resolved_at IS NOT NULL AND (NEW.resolved_at, NEW.topup_id, NEW.note)
        IS DISTINCT FROM (OLD.resolved_at, OLD.topup_id, OLD.note)
    ) EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER webhook_event_stays BEFORE DELETE ON billing_webhookevent
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER webhook_event_kept BEFORE TRUNCATE ON billing_webhookevent
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER webhook_event_says_the_same BEFORE UPDATE ON billing_webhookevent
    FOR EACH ROW WHEN (
        (NEW.provider, NEW.event, NEW.type, NEW.news, NEW.occurred_at)
        IS DISTINCT FROM (OLD.provider, OLD.event, OLD.type, OLD.news, OLD.occurred_at)
    ) EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER refund_report_immutable BEFORE UPDATE OR DELETE ON billing_refundreport
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER refund_report_kept BEFORE TRUNCATE ON billing_refundreport
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER payment_closing_immutable BEFORE UPDATE OR DELETE ON billing_paymentclosing
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER payment_closing_kept BEFORE TRUNCATE ON billing_paymentclosing
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER audited_head_immutable BEFORE UPDATE OR DELETE ON billing_auditedhead
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER audited_head_kept BEFORE TRUNCATE ON billing_auditedhead
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE FUNCTION billing_refuse_late_postings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM fresh JOIN billing_ledgertransaction t ON t.id = fresh.transaction_id
        JOIN billing_chainhead head ON head.count >= t.number
    ) THEN
        RAISE EXCEPTION 'billing_posting is immutable: the transaction is posted, and gets no further postings'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER posting_comes_with_its_transaction AFTER INSERT ON billing_posting
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_late_postings();
"""
REVERSE = """
DROP TRIGGER posting_comes_with_its_transaction ON billing_posting;
DROP FUNCTION billing_refuse_late_postings();
DROP TRIGGER audited_head_kept ON billing_auditedhead;
DROP TRIGGER audited_head_immutable ON billing_auditedhead;
DROP TRIGGER payment_closing_kept ON billing_paymentclosing;
DROP TRIGGER payment_closing_immutable ON billing_paymentclosing;
DROP TRIGGER refund_report_kept ON billing_refundreport;
DROP TRIGGER refund_report_immutable ON billing_refundreport;
DROP TRIGGER webhook_event_says_the_same ON billing_webhookevent;
DROP TRIGGER webhook_event_kept ON billing_webhookevent;
DROP TRIGGER webhook_event_stays ON billing_webhookevent;
DROP TRIGGER unmatched_payment_is_resolved_once ON billing_unmatchedpayment;
DROP TRIGGER unmatched_payment_kept ON billing_unmatchedpayment;
DROP TRIGGER unmatched_payment_stays ON billing_unmatchedpayment;
DROP TRIGGER promotion_is_not_refilled ON billing_promotionalcredit;
DROP FUNCTION billing_refuse_refilling();
DROP TRIGGER promotion_terms_stay ON billing_promotionalcredit;
"""
_ID = ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))


class Migration(migrations.Migration):
    """The terms of a lot and what was told of money stay, and what was seen of the chain is looked for again."""

    dependencies = [("billing", "0019_top_ups_are_written_with_a_hyphen")]

    operations = [
        migrations.CreateModel(
            name="AuditedHead",
            fields=[
                _ID,
                ("number", models.BigIntegerField()),
                ("hash", models.CharField(max_length=64)),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("number", "hash"), name="audited_head_once")],
            },
        ),
        migrations.CreateModel(
            name="RefundReport",
            fields=[
                _ID,
                ("reference", models.CharField(max_length=120)),
                ("refund", models.CharField(max_length=120)),
                ("status", models.CharField(max_length=16)),
                ("said_at", models.DateTimeField()),
                ("is_assumed", models.BooleanField(default=False)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("reference", "refund", "status"), name="refund_report_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PaymentClosing",
            fields=[
                _ID,
                ("provider", models.CharField(max_length=20)),
                ("payment", models.CharField(max_length=120)),
                ("closed_at", models.DateTimeField()),
                ("operator_id", models.BigIntegerField(null=True)),
                ("note", models.CharField(max_length=300)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("provider", "payment"), name="payment_closing_once")
                ],
            },
        ),
        migrations.RunSQL(REFUNDS, migrations.RunSQL.noop),
        migrations.RunSQL(CLOSINGS, migrations.RunSQL.noop),
        migrations.RunSQL(FORWARD, REVERSE),
    ]
