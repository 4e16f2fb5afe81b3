"""The Celery application; beat's schedule names every periodic task in one place."""

import os

from celery import Celery
from celery.schedules import crontab

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("tollgate")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks()
# Here, so that it also holds for a worker that somebody starts with Celery's own command.
app.conf.worker_pool = "config.lanes:Lanes"
app.conf.worker_concurrency = 2
app.conf.worker_prefetch_multiplier = 0
app.steps["worker"].add("config.sweeper:SweeperStep")

# Each task is idempotent and finds by itself what is due, so a lost or doubled tick does no harm. A tick that
# nobody took before the next one is due expires: a worker that was down does not come back to a pile of them.
app.conf.beat_schedule = {
    "roll-up-usage": {"task": "usage.roll_up_hours", "schedule": 30.0, "options": {"expires": 30}},
    "mail-allowances": {"task": "usage.mail_allowances", "schedule": 30.0, "options": {"expires": 30}},
    "mail-losses": {"task": "usage.mail_losses", "schedule": 30.0, "options": {"expires": 30}},
    "aggregate-allowances": {
        "task": "usage.aggregate_allowances",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "post-usage": {
        "task": "usage.post_hours",
        "schedule": crontab(minute="3-59/5"),
        "options": {"expires": 240},
    },
    "forget-idempotency-claims": {
        "task": "usage.forget_idempotency_claims",
        "schedule": crontab(minute="4-59/5"),
        "options": {"expires": 240},
    },
    "forget-minute-gaps": {
        "task": "usage.forget_minute_gaps",
        "schedule": crontab(minute="8-59/10"),
        "options": {"expires": 240},
    },
    "detect-anomalies": {
        "task": "usage.detect_anomalies",
        "schedule": crontab(minute="*/5"),
        "options": {"expires": 240},
    },
    "expire-promotions": {
        "task": "billing.expire_promotions",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "notice-expiring-promotions": {
        "task": "billing.notice_expiring_promotions",
        "schedule": crontab(minute="7-59/10"),
        "options": {"expires": 540},
    },
    "collect-credit": {"task": "billing.collect_credit", "schedule": 10.0, "options": {"expires": 10}},
    "ask-for-refunds": {"task": "billing.ask_for_refunds", "schedule": 60.0, "options": {"expires": 60}},
    "mail-about-refunds": {
        "task": "billing.mail_about_refunds",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "mail-receipts": {"task": "billing.mail_receipts", "schedule": 15.0, "options": {"expires": 15}},
    "mail-low-balances": {"task": "billing.mail_low_balances", "schedule": 30.0, "options": {"expires": 30}},
    "mail-budget-alerts": {
        "task": "billing.mail_budget_alerts",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "audit": {
        "task": "usage.audit",
        "schedule": crontab(hour="3", minute="17"),
        "options": {"expires": 6 * 3600},
    },
    "process-webhooks": {
        "task": "billing.process_webhooks",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "look-up-payments": {
        "task": "billing.look_up_payments",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "mail-unmatched-payments": {
        "task": "billing.mail_unmatched_payments",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "mail-waiting-events": {
        "task": "billing.mail_waiting_events",
        "schedule": crontab(minute="6-59/10"),
        "options": {"expires": 540},
    },
    "forget-payment-methods": {
        "task": "billing.forget_payment_methods",
        "schedule": crontab(minute="9-59/10"),
        "options": {"expires": 540},
    },
    "mail-set-apart": {"task": "usage.mail_set_apart", "schedule": 60.0, "options": {"expires": 60}},
    "top-up-automatically": {"task": "billing.top_up_due", "schedule": 10.0, "options": {"expires": 10}},
    "mail-auto-topups": {"task": "billing.mail_auto_topups", "schedule": 30.0, "options": {"expires": 30}},
    "mail-anomalies": {"task": "usage.mail_anomalies", "schedule": 60.0, "options": {"expires": 60}},
}
