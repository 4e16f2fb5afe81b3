from django.db import migrations

# An event that was acted on, or that an operator has closed, stays so: what was closed may still turn out to have been
# acted on meanwhile. Who closed it goes with its user.
FORWARD = """
CREATE TRIGGER webhook_event_ends_once BEFORE UPDATE ON billing_webhookevent
    FOR EACH ROW WHEN (
        OLD.outcome IN ('done', 'unmatched') AND NEW.outcome <> OLD.outcome
        OR OLD.closed_at IS NOT NULL AND (
            (NEW.closed_at, NEW.note) IS DISTINCT FROM (OLD.closed_at, OLD.note)
            OR NEW.closed_by_id IS NOT NULL AND NEW.closed_by_id IS DISTINCT FROM OLD.closed_by_id
            OR NEW.outcome = 'waiting'
        )
    ) EXECUTE FUNCTION billing_refuse_change();
"""
REVERSE = "DROP TRIGGER webhook_event_ends_once ON billing_webhookevent;"


class Migration(migrations.Migration):
    """What came of an event, and who closed it and why, is written once."""

    dependencies = [("billing", "0021_the_field_is_called_top_up")]

    operations = [migrations.RunSQL(FORWARD, REVERSE)]
