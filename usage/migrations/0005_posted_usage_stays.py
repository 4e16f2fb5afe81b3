from django.db import migrations

# Each condition is judged without calling the function, so what is done all day costs next to nothing.
FORWARD = """
CREATE FUNCTION usage_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is posted: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER usage_record_stays BEFORE UPDATE ON usage_usagerecord FOR EACH ROW
    WHEN (OLD.is_rolled_up AND (
        NEW.id, NEW.account_id, NEW.key_id, NEW.model_id, NEW.outcome, NEW.started_at, NEW.input_tokens,
        NEW.cached_input_tokens, NEW.cache_write_tokens, NEW.output_tokens, NEW.allowance_tokens, NEW.cost_nanousd, NEW.charged_nanousd,
        NEW.loss_nanousd, NEW.is_rolled_up
    ) IS DISTINCT FROM (
        OLD.id, OLD.account_id, OLD.key_id, OLD.model_id, OLD.outcome, OLD.started_at, OLD.input_tokens,
        OLD.cached_input_tokens, OLD.cache_write_tokens, OLD.output_tokens, OLD.allowance_tokens, OLD.cost_nanousd, OLD.charged_nanousd,
        OLD.loss_nanousd, OLD.is_rolled_up
    )) EXECUTE FUNCTION usage_refuse_change();

CREATE TRIGGER usage_record_is_kept BEFORE DELETE ON usage_usagerecord FOR EACH ROW
    WHEN (OLD.is_rolled_up AND (OLD.charged_nanousd <> 0 OR OLD.loss_nanousd <> 0))
    EXECUTE FUNCTION usage_refuse_change();

CREATE TRIGGER hourly_usage_stays BEFORE UPDATE ON usage_hourlyusage FOR EACH ROW
    WHEN (NEW.posted_nanousd < OLD.posted_nanousd OR OLD.posted_nanousd <> 0 AND (
        NEW.account_id, NEW.key_id, NEW.model_id, NEW.outcome, NEW.hour
    ) IS DISTINCT FROM (
        OLD.account_id, OLD.key_id, OLD.model_id, OLD.outcome, OLD.hour
    )) EXECUTE FUNCTION usage_refuse_change();

CREATE TRIGGER hourly_usage_is_kept BEFORE DELETE ON usage_hourlyusage FOR EACH ROW
    WHEN (OLD.posted_nanousd <> 0) EXECUTE FUNCTION usage_refuse_change();

CREATE TRIGGER usage_record_not_emptied BEFORE TRUNCATE ON usage_usagerecord
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();

CREATE TRIGGER hourly_usage_not_emptied BEFORE TRUNCATE ON usage_hourlyusage
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();
"""

REVERSE = """
DROP TRIGGER hourly_usage_not_emptied ON usage_hourlyusage;
DROP TRIGGER usage_record_not_emptied ON usage_usagerecord;
DROP TRIGGER hourly_usage_is_kept ON usage_hourlyusage;
DROP TRIGGER hourly_usage_stays ON usage_hourlyusage;
DROP TRIGGER usage_record_is_kept ON usage_usagerecord;
DROP TRIGGER usage_record_stays ON usage_usagerecord;
DROP FUNCTION usage_refuse_change();
"""


class Migration(migrations.Migration):
    """What was posted of usage cannot be undone, not even by a query written by hand.

    `posted` never exceeds `charged` (a CHECK of the table), so what was charged and posted stays as well.
    """

    dependencies = [
        ("usage", "0004_cache_writes"),
        ("billing", "0009_ledger_chain"),
    ]

    operations = [
        migrations.RunSQL(FORWARD, REVERSE),
    ]
