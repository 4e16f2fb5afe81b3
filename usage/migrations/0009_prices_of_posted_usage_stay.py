from django.db import migrations

DROP = """
DROP TRIGGER hourly_usage_stays ON usage_hourlyusage;
DROP TRIGGER usage_record_stays ON usage_usagerecord;
"""
# Of a posted hour, what its requests sum up to only grows, and only by further requests: that is the roll-up. Whether
# those exist is for the audit to say.
FORWARD = """
CREATE TRIGGER usage_record_stays BEFORE UPDATE ON usage_usagerecord FOR EACH ROW
    WHEN (OLD.is_rolled_up AND (
        NEW.id, NEW.account_id, NEW.key_id, NEW.model_id, NEW.endpoint, NEW.outcome, NEW.started_at,
        NEW.input_tokens, NEW.cached_input_tokens, NEW.cache_write_tokens, NEW.output_tokens,
        NEW.input_usd_per_mtok, NEW.output_usd_per_mtok, NEW.cached_input_usd_per_mtok,
        NEW.cache_write_usd_per_mtok, NEW.allowance_tokens, NEW.cost_nanousd, NEW.charged_nanousd,
        NEW.loss_nanousd, NEW.is_rolled_up
    ) IS DISTINCT FROM (
        OLD.id, OLD.account_id, OLD.key_id, OLD.model_id, OLD.endpoint, OLD.outcome, OLD.started_at,
        OLD.input_tokens, OLD.cached_input_tokens, OLD.cache_write_tokens, OLD.output_tokens,
        OLD.input_usd_per_mtok, OLD.output_usd_per_mtok, OLD.cached_input_usd_per_mtok,
        OLD.cache_write_usd_per_mtok, OLD.allowance_tokens, OLD.cost_nanousd, OLD.charged_nanousd,
        OLD.loss_nanousd, OLD.is_rolled_up
    )) EXECUTE FUNCTION usage_refuse_change();

CREATE TRIGGER hourly_usage_stays BEFORE UPDATE ON usage_hourlyusage FOR EACH ROW
    WHEN (NEW.posted_nanousd < OLD.posted_nanousd OR OLD.posted_nanousd <> 0 AND (
        (
        NEW.account_id, NEW.key_id, NEW.model_id, NEW.outcome, NEW.hour
        ) IS DISTINCT FROM (
        OLD.account_id, OLD.key_id, OLD.model_id, OLD.outcome, OLD.hour
        )
        OR NEW.requests < OLD.requests
        OR NEW.requests = OLD.requests AND (
        NEW.input_tokens, NEW.cached_input_tokens, NEW.output_tokens, NEW.allowance_tokens, NEW.cost_nanousd,
        NEW.charged_nanousd
        ) IS DISTINCT FROM (
        OLD.input_tokens, OLD.cached_input_tokens, OLD.output_tokens, OLD.allowance_tokens, OLD.cost_nanousd,
        OLD.charged_nanousd
        )
        OR NEW.requests > OLD.requests AND (
            NEW.input_tokens < OLD.input_tokens OR NEW.cached_input_tokens < OLD.cached_input_tokens OR
            NEW.output_tokens < OLD.output_tokens OR NEW.allowance_tokens < OLD.allowance_tokens OR
            NEW.cost_nanousd < OLD.cost_nanousd OR NEW.charged_nanousd < OLD.charged_nanousd
        )
    )) EXECUTE FUNCTION usage_refuse_change();
"""
BEFORE = """
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

CREATE TRIGGER hourly_usage_stays BEFORE UPDATE ON usage_hourlyusage FOR EACH ROW
    WHEN (NEW.posted_nanousd < OLD.posted_nanousd OR OLD.posted_nanousd <> 0 AND (
        NEW.account_id, NEW.key_id, NEW.model_id, NEW.outcome, NEW.hour
    ) IS DISTINCT FROM (
        OLD.account_id, OLD.key_id, OLD.model_id, OLD.outcome, OLD.hour
    )) EXECUTE FUNCTION usage_refuse_change();
"""


class Migration(migrations.Migration):
    """What was posted of usage keeps its prices too, and the sums of its hours."""

    dependencies = [("usage", "0008_lean_records")]

    operations = [migrations.RunSQL(DROP + FORWARD, DROP + BEFORE)]
