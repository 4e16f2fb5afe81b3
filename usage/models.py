"""What was used: one record per request, sums by the hour, allowances by the day, and what looked wrong."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account
from billing.models.mail_due import MailDue, OperatorsMailDue
from catalog.models import Model
from keys.models import ApiKey


class UsageRecord(models.Model):
    """One request, as it ended. The id is the request id, a UUIDv7, so ids are in order of arrival.

    Costs are nano-USD. `cost_nanousd` is the list price of what was used; `charged_nanousd` is what was taken
    from credits (nothing where the daily allowance paid, or where the upstream failed). PostgreSQL checks no foreign
    keys: three look-ups a request are dear, and the audit finds an orphan.
    """

    class Outcome(models.TextChoices):
        COMPLETED = "completed", "Completed"
        REFUSED = "refused", "Refused"
        FAILED = "failed", "Upstream failed"
        INTERRUPTED = "interrupted", "Interrupted"

    id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    key = models.ForeignKey(
        ApiKey, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    # Null: the request was refused before its model was known.
    model = models.ForeignKey(
        Model, on_delete=models.PROTECT, null=True, related_name="+", db_index=False, db_constraint=False
    )
    upstream = models.CharField(max_length=60, blank=True, help_text="The provider's slug, or `sandbox`.")
    endpoint = models.CharField(max_length=60)
    outcome = models.CharField(max_length=12, choices=Outcome)
    status = models.PositiveSmallIntegerField(help_text="The HTTP status that the client got.")
    error_code = models.CharField(max_length=40, blank=True)
    error_message = models.CharField(
        max_length=500, blank=True, help_text="Ours: it says what would unblock it."
    )
    is_streamed = models.BooleanField(default=False)
    is_estimated = models.BooleanField(default=False, help_text="The upstream reported no usage.")
    finish_reason = models.CharField(max_length=30, blank=True)
    input_tokens = models.PositiveIntegerField(default=0, help_text="Cached ones included.")
    cached_input_tokens = models.PositiveIntegerField(default=0)
    cache_write_tokens = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Of the input: what was written to a cache."
    )
    output_tokens = models.PositiveIntegerField(default=0, help_text="Reasoning tokens included.")
    input_usd_per_mtok = models.DecimalField(max_digits=12, decimal_places=6, null=True)
    output_usd_per_mtok = models.DecimalField(max_digits=12, decimal_places=6, null=True)
    cached_input_usd_per_mtok = models.DecimalField(max_digits=12, decimal_places=6, null=True)
    # Null in records from before it was known: the input price held.
    cache_write_usd_per_mtok = models.DecimalField(max_digits=12, decimal_places=6, null=True)
    cost_nanousd = models.BigIntegerField(default=0)
    charged_nanousd = models.BigIntegerField(default=0)
    # What the upstream reported beyond the hold and beyond the credit: booked to platform_loss.
    loss_nanousd = models.BigIntegerField(default=0)
    allowance_tokens = models.PositiveIntegerField(default=0, help_text="Drawn from the daily allowance.")
    latency_ms = models.PositiveIntegerField(default=0)
    time_to_first_token_ms = models.PositiveIntegerField(null=True)
    ip_address = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=40, blank=True, help_text="Its family, not the whole header.")
    client_request_id = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    # Set once, together with the addition to HourlyUsage: see `usage.rollups`.
    is_rolled_up = models.BooleanField(default=False, editable=False)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["account", "-id"], name="usage_by_account"),
            models.Index(fields=["key", "-id"], name="usage_by_key"),
            models.Index(
                fields=["account"], condition=models.Q(is_rolled_up=False), name="usage_not_rolled_up"
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(
                    cost_nanousd__gte=0,
                    charged_nanousd__gte=0,
                    loss_nanousd__gte=0,
                    input_tokens__gte=models.F("cached_input_tokens") + models.F("cache_write_tokens"),
                ),
                name="usage_amounts_make_sense",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class HourlyUsage(models.Model):
    """Sums of usage records by account, key, model, outcome and UTC hour; `posted_nanousd` of the charge is booked."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+", db_index=False)
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+", db_index=False)
    model = models.ForeignKey(Model, on_delete=models.PROTECT, null=True, related_name="+", db_index=False)
    outcome = models.CharField(max_length=12, choices=UsageRecord.Outcome)
    hour = models.DateTimeField()
    requests = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nanousd = models.BigIntegerField(default=0)
    charged_nanousd = models.BigIntegerField(default=0)
    allowance_tokens = models.BigIntegerField(default=0)
    posted_nanousd = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "hour", "key", "model", "outcome"],
                nulls_distinct=False,
                name="hourly_usage_once",
            ),
            models.CheckConstraint(
                condition=models.Q(posted_nanousd__lte=models.F("charged_nanousd"), posted_nanousd__gte=0),
                name="hourly_usage_posted_within_charged",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["hour"],
                condition=~models.Q(posted_nanousd=models.F("charged_nanousd")),
                name="hourly_usage_not_posted",
            ),
            # Of all accounts: what was spent in the last hours.
            models.Index(fields=["hour"], name="hourly_usage_by_hour"),
        ]

    def __str__(self) -> str:
        return f"account {self.account_id} at {self.hour:%Y-%m-%d %H}:00 UTC"


class LossToTell(OperatorsMailDue):
    """A loss that was booked and that the operators have not heard of yet; what was lost is in the ledger."""

    record_id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+", db_index=False)
    amount_nanousd = models.BigIntegerField()

    def __str__(self) -> str:
        return f"loss of request {self.record_id}"


class DailyAllowance(MailDue):
    """What an account has drawn of its plan's allowance on a UTC day, and what running requests have reserved.

    It owes the account an e-mail when 80 % is used, and when all is, until the day is over.
    """

    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="daily_allowances", db_index=False
    )
    day = models.DateField()
    requests = models.IntegerField(default=0)
    tokens = models.BigIntegerField(default=0)
    held_tokens = models.BigIntegerField(default=0)
    # Written by the task that aggregates the day: see `usage.allowances`.
    share = models.DecimalField(
        max_digits=7, decimal_places=4, default=0, help_text="Of the tighter limit; 1 is all."
    )
    warned_at = models.DateTimeField(null=True, help_text="When 80 % was reached.")
    exhausted_at = models.DateTimeField(null=True, help_text="When 100 % was reached.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["account", "day"], name="daily_allowance_once"),
            models.CheckConstraint(
                condition=models.Q(requests__gte=0, tokens__gte=0, held_tokens__gte=0),
                name="daily_allowance_not_negative",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["day"], name="daily_allowance_by_day")]

    def __str__(self) -> str:
        return f"account {self.account_id} on {self.day}"


class IdempotencyClaim(models.Model):
    """An `Idempotency-Key` that a request of an API key has taken; freed when the request fails, forgotten after a day.

    The claim is money and lives here; the answer that a repetition gets is not, and lives in Redis.
    """

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+", db_index=False)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the key that the client sent.")
    body_digest = models.CharField(max_length=64, help_text="SHA-256 of endpoint and body.")
    request_id = models.UUIDField(db_index=True)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["key", "digest"], name="idempotency_claimed_once"),
        ]

    def __str__(self) -> str:
        return f"claim of request {self.request_id}"


class HoldWatch(models.Model):
    """One row: since when the sweep of holds has looked without a gap, and when it last did. The database's clock."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    began_at = models.DateTimeField()
    looked_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(id=1), name="hold_watch_is_one_row"),
        ]

    def __str__(self) -> str:
        return f"since {self.began_at}"


class MinuteGap(models.Model):
    """A key of which Redis may have missed a request: until then its minute is counted from what was admitted.

    Written and read under the wallet's lock, by every process: see `usage.minutes`.
    """

    key_id = models.BigIntegerField(primary_key=True)
    ends_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"gap in the minute of key {self.key_id}"


class Anomaly(models.Model):
    """An hour in which a key, or an account as a whole, spent far more than it does in the same hours of other days."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="anomalies")
    # Null: the account as a whole.
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, null=True, related_name="anomalies")
    # The model that cost most in the hour.
    model = models.ForeignKey(Model, on_delete=models.PROTECT, null=True, related_name="+")
    hour = models.DateTimeField(help_text="The first hour of the spike.")
    last_hour = models.DateTimeField(
        null=True, help_text="The latest hour of the spike; empty: the first was."
    )
    expected_nanousd = models.BigIntegerField()
    threshold_nanousd = models.BigIntegerField()
    observed_nanousd = models.BigIntegerField()
    detected_at = models.DateTimeField(default=timezone.now)
    # The e-mail is leased before it is sent and marked after: a worker that dies in between is found out.
    mail_claimed_at = models.DateTimeField(null=True, editable=False)
    mailed_at = models.DateTimeField(null=True)
    acknowledged_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-detected_at"]
        verbose_name_plural = "anomalies"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "key", "hour"], nulls_distinct=False, name="anomaly_once"
            ),
        ]

    def __str__(self) -> str:
        return f"anomaly of account {self.account_id} at {self.hour:%Y-%m-%d %H}:00 UTC"
