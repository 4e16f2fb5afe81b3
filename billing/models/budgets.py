"""Limits on what may be spent."""

from decimal import Decimal
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Coalesce

from accounts.models import Account
from billing.models.mail_due import MailDue
from keys.models import ApiKey


class Budget(MailDue):
    """A limit on what an account, an environment of it or a key may spend in a UTC period, or in total.

    The figures are the teller's, written under the lock of the account's wallet: see `billing.budgets`.
    """

    class Period(models.TextChoices):
        TOTAL = "total", "In total"
        DAY = "day", "A day"
        WEEK = "week", "A week"
        MONTH = "month", "A month"

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="budgets", db_index=False)
    # At most one of the two; neither: the whole account.
    environment = models.CharField(max_length=16, choices=ApiKey.Environment, blank=True)
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, null=True, blank=True, related_name="budgets")
    period = models.CharField(max_length=8, choices=Period, default=Period.TOTAL)
    limit_nanousd = models.BigIntegerField()
    is_hard_stop = models.BooleanField(
        default=True, help_text="Refuses what could go beyond the limit; otherwise it only alerts."
    )
    # Of the period that began on `period_start`, and of the one before; the first request of a new period begins anew.
    period_start = models.DateField(editable=False)
    spent_nanousd = models.BigIntegerField(default=0, editable=False)
    held_nanousd = models.BigIntegerField(default=0, editable=False)
    previous_spent_nanousd = models.BigIntegerField(default=0, editable=False)
    previous_held_nanousd = models.BigIntegerField(default=0, editable=False)
    alert_percents = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    # The highest percentage that was mailed, or is owed as an e-mail, in the period that began on that day.
    alerted_percent = models.PositiveSmallIntegerField(default=0, editable=False)
    alerted_period_start = models.DateField(null=True, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "environment", "key", "period"], nulls_distinct=False, name="budget_once"
            ),
            models.CheckConstraint(
                condition=models.Q(environment="") | models.Q(key=None), name="budget_has_one_scope"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    limit_nanousd__gte=0,
                    spent_nanousd__gte=0,
                    held_nanousd__gte=0,
                    previous_spent_nanousd__gte=0,
                    previous_held_nanousd__gte=0,
                ),
                name="budget_not_negative",
            ),
        ]
        indexes: ClassVar = [
            # What the teller asks for a batch of requests: the budgets of their keys (0: of more than one key).
            models.Index("account", Coalesce("key", 0), name="budget_by_account_and_key"),
        ]

    def __str__(self) -> str:
        scope = f"key {self.key_id}" if self.key_id else self.environment or "the account"
        return f"budget of {scope}, {self.get_period_display().lower()}"

    @property
    def scope_label(self) -> str:
        """Whose spending it limits, for people."""
        if self.key is not None:
            return f"Key {self.key.name}"
        return f"{self.get_environment_display()} keys" if self.environment else "Whole account"

    @property
    def label(self) -> str:
        """The budget in a sentence: "the budget of $5.00 a month"."""
        return f"the budget of ${Decimal(self.limit_nanousd).scaleb(-9):,.2f} {self.get_period_display().lower()}"
