"""What an account has, and what is held of it for the requests that run."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account
from keys.models import ApiKey


class Wallet(models.Model):
    """Prepaid credit of an account, in nano-USD. Written only through `billing.wallets` and by the teller."""

    account = models.OneToOneField(Account, on_delete=models.CASCADE, primary_key=True, related_name="wallet")
    balance_nanousd = models.BigIntegerField(default=0)
    # Of running requests, and of what is still to take.
    held_nanousd = models.BigIntegerField(default=0)
    # For disputes and refunds, as soon as running requests leave it: see `billing.collecting`. Until then it is held
    # twice, for the requests and for this, so that no other request gets it.
    to_take_nanousd = models.BigIntegerField(default=0, db_default=0, editable=False)
    # How much of all that was ever charged is divided among promotional and paid credit: see `billing.promotions`.
    # With a default in the database, because wallets are made there too.
    attributed_nanousd = models.BigIntegerField(default=0, db_default=0, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(balance_nanousd__gte=0), name="wallet_balance_not_negative"
            ),
            models.CheckConstraint(condition=models.Q(held_nanousd__gte=0), name="wallet_held_not_negative"),
            models.CheckConstraint(
                condition=models.Q(
                    held_nanousd__lte=models.F("balance_nanousd") + models.F("to_take_nanousd")
                ),
                name="wallet_held_within_balance",
            ),
            models.CheckConstraint(
                condition=models.Q(to_take_nanousd__gte=0, to_take_nanousd__lte=models.F("held_nanousd")),
                name="wallet_to_take_is_held",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["account"], name="wallet_to_take", condition=models.Q(to_take_nanousd__gt=0)
            ),
        ]

    def __str__(self) -> str:
        return f"wallet of account {self.account_id}"

    @property
    def available_nanousd(self) -> int:
        return max(0, self.balance_nanousd - self.held_nanousd)

    @property
    def set_aside_nanousd(self) -> int:
        """What of the balance is not available: running requests hold it, and perhaps a dispute waits for it."""
        return self.balance_nanousd - self.available_nanousd


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

    No foreign keys and no index but its own: it lives for seconds, and each would be paid for by every request. That
    none is orphaned is for the audit to say.

    It keeps enough of the request to write its usage record if the process that placed it dies.
    """

    request_id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="holds", db_index=False, db_constraint=False
    )
    key = models.ForeignKey(
        ApiKey, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    # No foreign key: a process is forgotten when its last hold is resolved, and admission stays cheap.
    process_id = models.UUIDField()
    amount_nanousd = models.BigIntegerField()
    # Reserved of the daily allowance instead of (never beside) an amount of credit; null: paid from credits.
    allowance_day = models.DateField(null=True)
    allowance_tokens = models.BigIntegerField(default=0)
    # What the usage record of an interrupted request says, as JSON: see `usage.recording`. As text, because hardly one
    # is ever read, and `jsonb` would take each apart.
    request = models.TextField(default="{}")
    # When the request started: the budgets that count it follow from this, its account and its key.
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
