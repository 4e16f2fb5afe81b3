"""Limits on what may be spent."""

from typing import ClassVar

from django.db import models

from accounts.models import Account
from keys.models import ApiKey


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
