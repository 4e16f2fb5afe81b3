from django.db import migrations

# TRUNCATE is not refused: it is how transactional tests empty the tables, and no role of the application needs it.
FORWARD = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is immutable: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER ledger_transaction_immutable BEFORE UPDATE OR DELETE ON billing_ledgertransaction
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE TRIGGER posting_immutable BEFORE UPDATE OR DELETE ON billing_posting
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE FUNCTION billing_require_balance(ledger_transaction bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    legs bigint;
    total numeric;
BEGIN
    SELECT count(*), coalesce(sum(amount_nanousd), 0) INTO legs, total
        FROM billing_posting WHERE transaction_id = ledger_transaction;
    IF legs < 2 OR total <> 0 THEN
        RAISE EXCEPTION 'ledger transaction % has % postings that sum to %', ledger_transaction, legs, total
            USING ERRCODE = 'check_violation';
    END IF;
END
$$;

CREATE FUNCTION billing_check_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM billing_require_balance(NEW.id);
    RETURN NULL;
END
$$;

CREATE FUNCTION billing_check_posting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM billing_require_balance(NEW.transaction_id);
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER ledger_transaction_balanced AFTER INSERT ON billing_ledgertransaction
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_transaction();

CREATE CONSTRAINT TRIGGER posting_balanced AFTER INSERT ON billing_posting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_posting();
"""

REVERSE = """
DROP TRIGGER posting_balanced ON billing_posting;
DROP TRIGGER ledger_transaction_balanced ON billing_ledgertransaction;
DROP FUNCTION billing_check_posting();
DROP FUNCTION billing_check_transaction();
DROP FUNCTION billing_require_balance(bigint);
DROP TRIGGER posting_immutable ON billing_posting;
DROP TRIGGER ledger_transaction_immutable ON billing_ledgertransaction;
DROP FUNCTION billing_refuse_change();
"""


class Migration(migrations.Migration):
    """The ledger cannot be changed or unbalanced, not even by a query written by hand."""

    dependencies = [
        ("billing", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL(FORWARD, REVERSE),
    ]
