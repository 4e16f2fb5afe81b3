from django.db import migrations

FORWARD = """
CREATE TRIGGER receipt_kept BEFORE TRUNCATE ON billing_receipt
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();
"""
REVERSE = "DROP TRIGGER receipt_kept ON billing_receipt;"


class Migration(migrations.Migration):
    """Receipts cannot be emptied either."""

    dependencies = [("billing", "0012_lean_holds")]

    operations = [migrations.RunSQL(FORWARD, REVERSE)]
