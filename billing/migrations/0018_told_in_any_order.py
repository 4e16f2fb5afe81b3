import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

# Of a refund that had failed before it was heard of nothing was kept, and what was told of it before could be booked
# after that. Acting on all such news again does nothing where the books are right, and mends them where they are not.
FAILED_AGAIN = """
UPDATE billing_webhookevent
SET outcome = 'waiting', processed_at = NULL, due_at = now(), operators_mail_due_at = now() + interval '1 day'
WHERE outcome = 'done' AND news->>'kind' = 'RefundChanged' AND news->>'status' = 'failed';
"""
# The amount that is booked is the first that was told; whatever differed waits, and is compared with this.
TOLD_AT = """
UPDATE billing_dispute d SET amount_told_at = coalesce((
    SELECT max(e.occurred_at) FROM billing_webhookevent e JOIN billing_topup u ON u.id = d.topup_id
    WHERE e.outcome = 'done' AND e.provider = u.provider AND e.news->>'payment' = u.provider_payment
        AND e.news->>'kind' = 'DisputeChanged' AND e.news->>'dispute' = d.provider_dispute
), d.opened_at);
"""


class Migration(migrations.Migration):
    """Refunds that failed before they were heard of, disputes of another amount, and events that operators close."""

    dependencies = [
        ("billing", "0017_both_ways"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="dispute",
            name="amount_told_at",
            field=models.DateTimeField(default=django.utils.timezone.now),
        ),
        migrations.AddField(
            model_name="webhookevent",
            name="closed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="webhookevent",
            name="closed_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="webhookevent",
            name="note",
            field=models.CharField(blank=True, max_length=300),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("bookings__gt", 0),
                    models.Q(("provider_refund__isnull", False), ("status", "failed")),
                    _connector="OR",
                ),
                name="refund_is_booked_unless_it_had_failed",
            ),
        ),
        migrations.AddConstraint(
            model_name="webhookevent",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("closed_at", None), ("note", "")),
                    models.Q(
                        ("closed_at__isnull", False),
                        models.Q(("note", ""), _negated=True),
                        models.Q(("outcome", "waiting"), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="webhook_event_closed_with_a_note",
            ),
        ),
        migrations.RunSQL(TOLD_AT, migrations.RunSQL.noop),
        migrations.RunSQL(FAILED_AGAIN, migrations.RunSQL.noop),
    ]
