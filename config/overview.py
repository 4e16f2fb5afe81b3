"""What the overview shows: how an account stands today, and what it has not done yet."""

import datetime as dt
from dataclasses import dataclass

from accounts.models import Account
from billing.models import TopUp
from keys.models import ApiKey
from usage import queries
from usage.models import Anomaly
from usage.queries import AllowanceFacts, Series

CHART_DAYS = 30


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """What a new account does first, and whether it is done."""

    has_key: bool
    has_called: bool
    has_bought: bool

    @property
    def done(self) -> int:
        return self.has_key + self.has_called + self.has_bought

    @property
    def are_done(self) -> bool:
        return self.has_key and self.has_called and self.has_bought

    @property
    def awaits_call(self) -> bool:
        """There is a key to call with, so the page listens for the first call."""
        return self.has_key and not self.has_called


@dataclass(frozen=True, slots=True)
class Overview:
    """An account at a moment. `used` is spend where there was any, else tokens: the free ones cost nothing."""

    allowance: AllowanceFacts
    steps: FirstSteps
    used: Series
    alerts: list[Anomaly]

    @classmethod
    def load(cls, *, account: Account, at: dt.datetime) -> "Overview":
        start = (at - dt.timedelta(days=CHART_DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        used = queries.series(account=account, start=start, end=at, metric="charged")
        if not used.total:
            used = queries.series(account=account, start=start, end=at, metric="tokens")
        return cls(
            allowance=queries.today_allowance(account=account, at=at),
            steps=FirstSteps(
                has_key=ApiKey.objects.filter(account=account).exists(),
                has_called=queries.has_called(account=account),
                has_bought=TopUp.objects.filter(account=account, status=TopUp.Status.PAID).exists(),
            ),
            used=used,
            alerts=queries.open_anomalies(account=account),
        )
