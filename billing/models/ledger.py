"""The books: every movement of money, in double entry."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account


class LedgerAccount(models.Model):
    """One account of the books. A positive sum of postings is a credit balance (what we owe, or what we earned)."""

    class Kind(models.TextChoices):
        CUSTOMER_CREDITS = "customer_credits", "Customer credits"
        CASH_CLEARING = "cash_clearing", "Cash clearing"
        FEE_REVENUE = "fee_revenue", "Fee revenue"
        USAGE_REVENUE = "usage_revenue", "Usage revenue"
        PROMOTIONS = "promotions", "Promotions"
        ADJUSTMENTS = "adjustments", "Adjustments"
        REFUNDS = "refunds", "Refunds"
        DISPUTES = "disputes", "Disputes"
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
    """A movement of money: postings that sum to zero, under a reference that can be used once.

    Numbers have no gaps, and each transaction carries the hash of the one before: see `billing.chain`.
    """

    class Kind(models.TextChoices):
        TOPUP = "topup", "Top-up"
        USAGE = "usage", "Usage"
        PROMOTION = "promotion", "Credit granted"
        ADJUSTMENT = "adjustment", "Adjustment"
        EXPIRY = "expiry", "Credit expired"
        REFUND = "refund", "Refund"
        DISPUTE = "dispute", "Dispute"
        LOSS = "loss", "Platform loss"

    number = models.BigIntegerField(unique=True, editable=False)
    reference = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=16, choices=Kind)
    # The customer it concerns, so that an account's ledger is one index scan (and, later, one shard).
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="ledger_transactions")
    description = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now)
    previous_hash = models.CharField(max_length=64, editable=False)
    hash = models.CharField(max_length=64, editable=False)

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


class AuditedHead(models.Model):
    """The end of the chain as an audit has seen it, whole: every later audit looks for that transaction."""

    number = models.BigIntegerField()
    hash = models.CharField(max_length=64)
    seen_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["number", "hash"], name="audited_head_once"),
        ]

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


class ChainHead(models.Model):
    """The end of the ledger's chain, in one row: its lock is the turn to post, and a tail cut off is missed by it."""

    THE_ONE = 1

    id = models.SmallIntegerField(primary_key=True, default=THE_ONE)
    count = models.BigIntegerField(default=0)
    # Of the last transaction; before the first one, `chain.GENESIS`.
    hash = models.CharField(max_length=64)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(id=1), name="chain_head_is_one_row"),
        ]

    def __str__(self) -> str:
        return f"{self.count} transactions, the last one {self.hash}"
