from django.db import migrations


class Migration(migrations.Migration):
    """Receipts cannot be emptied either."""

    dependencies = [("billing", "0012_lean_holds")]

    operations = [
        migrations.RunSQL(
            """
            CREATE TRIGGER receipt_kept BEFORE TRUNCATE ON billing_receipt
                FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_truncate();
            """,
            "DROP TRIGGER receipt_kept ON billing_receipt;",
        ),
    ]
