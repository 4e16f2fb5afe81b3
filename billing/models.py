"""Money: what an account has, what is held of it, every movement in double entry, and what was bought."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account, User
from keys.models import ApiKey


class Wallet(models.Model):
    """Prepaid credit of an account, in nano-USD. Written only by `billing.holding` and `billing.crediting`."""

    account = models.OneToOneField(Account, on_delete=models.CASCADE, primary_key=True, related_name="wallet")
    balance_nanousd = models.BigIntegerField(default=0)
    held_nanousd = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(balance_nanousd__gte=0), name="wallet_balance_not_negative"
            ),
            models.CheckConstraint(condition=models.Q(held_nanousd__gte=0), name="wallet_held_not_negative"),
            models.CheckConstraint(
                condition=models.Q(held_nanousd__lte=models.F("balance_nanousd")),
                name="wallet_held_within_balance",
            ),
        ]

    def __str__(self) -> str:
        return f"wallet of account {self.account_id}"

    @property
    def available_nanousd(self) -> int:
        return self.balance_nanousd - self.held_nanousd


class Budget(models.Model):
    """A hard limit on what a key may spend, in total or a UTC period, counted with the holds in the teller."""

    class Period(models.TextChoices):
        TOTAL = "total", "In total"
        DAY = "day", "A day"
        WEEK = "week", "A week"
        MONTH = "month", "A month"

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="budgets")
    key = models.OneToOneField(ApiKey, on_delete=models.CASCADE, related_name="budget")
    period = models.CharField(max_length=8, choices=Period, default=Period.TOTAL)
    limit_nanousd = models.BigIntegerField()
    # Of the period that began on `period_start`; the first request of a new period starts again from zero.
    spent_nanousd = models.BigIntegerField(default=0, editable=False)
    held_nanousd = models.BigIntegerField(default=0, editable=False)
    period_start = models.DateField(editable=False)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(limit_nanousd__gte=0, spent_nanousd__gte=0, held_nanousd__gte=0),
                name="budget_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"budget of key {self.key_id}"


class GatewayProcess(models.Model):
    """A gateway process and its last sign of life; the holds of a silent one are swept."""

    id = models.UUIDField(primary_key=True)
    started_at = models.DateTimeField(default=timezone.now)
    heartbeat_at = models.DateTimeField(default=timezone.now)
    # How the upstreams have been doing, as this process sees it at its heartbeat: by target, what a breaker says.
    upstreams = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()))

    class Meta:
        verbose_name_plural = "upstream health"

    def __str__(self) -> str:
        return str(self.id)


class Hold(models.Model):
    """What is set aside for one request until it is settled at its real cost, or released. Deleted by either.

    It keeps enough of the request to write its usage record if the process that placed it dies.
    """

    request_id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="holds", db_index=False)
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+", db_index=False)
    # No foreign key: a process is forgotten when its last hold is resolved, and admission stays cheap.
    process_id = models.UUIDField(db_index=True)
    amount_nanousd = models.BigIntegerField()
    # Reserved of the daily allowance instead of (never beside) an amount of credit; null: paid from credits.
    allowance_day = models.DateField(null=True)
    allowance_tokens = models.BigIntegerField(default=0)
    # The start of the budget period that counts the amount; null: the key has no budget.
    budget_period_start = models.DateField(null=True)
    # What the usage record of an interrupted request says: see `usage.recording`.
    request = models.JSONField(default=dict)
    placed_at = models.DateTimeField(default=timezone.now)
    # The tokens it counts as in its key's minute: see `usage.minutes`.
    minute_tokens = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(amount_nanousd__gte=0, allowance_tokens__gte=0), name="hold_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return str(self.request_id)


class LedgerAccount(models.Model):
    """One account of the books. A positive sum of postings is a credit balance (what we owe, or what we earned)."""

    class Kind(models.TextChoices):
        CUSTOMER_CREDITS = "customer_credits", "Customer credits"
        CASH_CLEARING = "cash_clearing", "Cash clearing"
        FEE_REVENUE = "fee_revenue", "Fee revenue"
        USAGE_REVENUE = "usage_revenue", "Usage revenue"
        PROMOTIONS = "promotions", "Promotions"
        PLATFORM_LOSS = "platform_loss", "Platform loss"

    kind = models.CharField(max_length=20, choices=Kind)
    # Of customer credits: whose they are. Null on the platform's own accounts.
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, null=True, blank=True, related_name="ledger_accounts"
    )
    # Of cash clearing: the payment provider's slug.
    provider = models.CharField(max_length=20, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "account", "provider"], nulls_distinct=False, name="ledger_account_once"
            ),
            models.CheckConstraint(
                condition=models.Q(kind="customer_credits", account__isnull=False)
                | (~models.Q(kind="customer_credits") & models.Q(account=None)),
                name="ledger_account_has_owner_iff_customer_credits",
            ),
        ]

    def __str__(self) -> str:
        return self.get_kind_display() + (f" of account {self.account_id}" if self.account_id else "")


class LedgerTransaction(models.Model):
    """A movement of money: postings that sum to zero, under a reference that can be used once."""

    class Kind(models.TextChoices):
        TOPUP = "topup", "Top-up"
        USAGE = "usage", "Usage"
        PROMOTION = "promotion", "Credit granted"
        LOSS = "loss", "Platform loss"

    reference = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=16, choices=Kind)
    # The customer it concerns, so that an account's ledger is one index scan (and, later, one shard).
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="ledger_transactions")
    description = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["account", "-id"], name="ledger_by_account")]

    def __str__(self) -> str:
        return self.reference


class Posting(models.Model):
    """One leg of a ledger transaction, in nano-USD. Positive credits the ledger account, negative debits it."""

    transaction = models.ForeignKey(LedgerTransaction, on_delete=models.PROTECT, related_name="postings")
    ledger_account = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="postings")
    amount_nanousd = models.BigIntegerField()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=~models.Q(amount_nanousd=0), name="posting_not_zero"),
        ]

    def __str__(self) -> str:
        return f"{self.amount_nanousd} nano-USD to {self.ledger_account_id}"


class TopUp(models.Model):
    """Credit bought or being bought. The amounts are the quote, and the quote is what is charged. In nano-USD."""

    class Status(models.TextChoices):
        PENDING = "pending", "Waiting for payment"
        PAID = "paid", "Paid"
        CANCELED = "canceled", "Canceled"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="topups")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    provider = models.CharField(max_length=20)
    # The provider's own name for the payment; unguessable for the sandbox.
    provider_reference = models.CharField(max_length=120)
    credit_nanousd = models.BigIntegerField()
    fee_nanousd = models.BigIntegerField()
    total_nanousd = models.BigIntegerField()
    fee_rate = models.DecimalField(max_digits=5, decimal_places=4)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    created_at = models.DateTimeField(default=timezone.now)
    paid_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["account", "-id"], name="topup_by_account")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "provider_reference"], name="topup_once_per_payment"),
            models.CheckConstraint(
                condition=models.Q(credit_nanousd__gt=0, fee_nanousd__gte=0)
                & models.Q(total_nanousd=models.F("credit_nanousd") + models.F("fee_nanousd")),
                name="topup_total_is_credit_and_fee",
            ),
            models.CheckConstraint(
                condition=models.Q(status="paid", paid_at__isnull=False)
                | (~models.Q(status="paid") & models.Q(paid_at=None)),
                name="topup_paid_at_iff_paid",
            ),
        ]

    def __str__(self) -> str:
        return f"top-up {self.pk}"
