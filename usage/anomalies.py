"""Spikes: hours in which a key, or an account as a whole, takes far more from its credits than it usually does.

The running hour is judged too, so that an alert arrives within minutes. A running hour can only be too high: it is
never called low, and what it has spent so far can only grow.
"""

import datetime as dt
from collections import Counter, defaultdict
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import Q

from accounts import auditing
from accounts.models import User
from usage import baselines, live
from usage.models import Anomaly

COOL_DOWN = dt.timedelta(hours=6)
# A worker that leased an e-mail and did not mark it as sent within this time is taken for dead.
MAIL_LEASE = dt.timedelta(minutes=10)
_HOUR = dt.timedelta(hours=1)

# Accounts with an hour that could be a spike at all, and those only: the rest of the work is per account.
_CANDIDATES = """
    SELECT DISTINCT account_id FROM (
        SELECT account_id, hour, charged_nanousd FROM usage_hourlyusage WHERE hour >= %(since)s
        UNION ALL
        SELECT account_id, date_trunc('hour', started_at, 'UTC'), charged_nanousd
        FROM usage_usagerecord WHERE NOT is_rolled_up AND started_at >= %(since)s
    ) AS used
    WHERE hour < %(until)s
    GROUP BY account_id, hour HAVING sum(charged_nanousd) > %(least)s
    ORDER BY account_id
"""
_SPENT = f"""
    {live.USED}
    SELECT key_id, hour, model_id, sum(charged_nanousd)::bigint FROM narrowed
    GROUP BY 1, 2, 3 HAVING sum(charged_nanousd) > 0
"""  # noqa: S608 - constants
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('usage.anomalies', %s))"


@dataclass(frozen=True, slots=True)
class _Spike:
    """An hour above its threshold. `key_id` None: of the account as a whole."""

    key_id: int | None
    hour: dt.datetime
    observed_nanousd: int
    baseline: baselines.Baseline
    model_id: int | None


class _Spending:
    """What an account took from its credits: by key, hour and model, for as long as the history reaches."""

    def __init__(self, rows: list[tuple[int, dt.datetime, int | None, int]]) -> None:
        self.by_hour: dict[int | None, Counter[dt.datetime]] = defaultdict(Counter)
        self._by_model: dict[tuple[int | None, dt.datetime], Counter[int | None]] = defaultdict(Counter)
        for key_id, hour, model_id, charged in rows:
            for scope in (key_id, None):
                self.by_hour[scope][hour] += charged
                self._by_model[scope, hour][model_id] += charged

    def spike(self, *, key_id: int | None, hour: dt.datetime) -> _Spike | None:
        spent = self.by_hour[key_id]
        if spent[hour] <= baselines.MINIMUM_EXCESS_NANOUSD:
            return None
        usual = baselines.baseline(spent=spent, hour=hour)
        if usual is None or spent[hour] <= usual.threshold_nanousd:
            return None
        ((model_id, _charged),) = self._by_model[key_id, hour].most_common(1)
        return _Spike(key_id, hour, spent[hour], usual, model_id)

    def spikes(self, *, hour: dt.datetime) -> list[_Spike]:
        """The keys' spikes; and the account's, unless without those keys it would be within its threshold."""
        keys = sorted(key_id for key_id in self.by_hour if key_id is not None)
        spikes = [spike for key_id in keys if (spike := self.spike(key_id=key_id, hour=hour))]
        whole = self.spike(key_id=None, hour=hour)
        explained = sum(spike.observed_nanousd for spike in spikes)
        if whole and whole.observed_nanousd - explained > whole.baseline.threshold_nanousd:
            spikes.append(whole)
        return spikes


def detect(*, at: dt.datetime) -> list[Anomaly]:
    """Write the spikes of the last ended hour and of the running one; returns those that are new.

    An hour above its threshold within COOL_DOWN of the latest hour of a known spike continues that spike, which then
    shows its worst hour: one spike is one anomaly and one e-mail, however long it lasts.
    """
    running = at.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    hours = [running - _HOUR, running]
    least = baselines.MINIMUM_EXCESS_NANOUSD
    candidates = live.select(_CANDIDATES, {"since": hours[0], "until": running + _HOUR, "least": least})
    return [
        new for (account_id,) in candidates for new in _detect_in(account_id=account_id, hours=hours, at=at)
    ]


def _detect_in(*, account_id: int, hours: list[dt.datetime], at: dt.datetime) -> list[Anomaly]:
    since = hours[0] - dt.timedelta(days=baselines.HISTORY_DAYS) - baselines.NEIGHBOR_HOURS * _HOUR
    found = []
    with transaction.atomic():
        # Two workers at once would each look for the known spike and each make one.
        with connection.cursor() as cursor:
            cursor.execute(_LOCK, [account_id])
        spending = _Spending(live.select(_SPENT, live.parameters(account_id, since, hours[-1] + _HOUR, {})))
        for hour in hours:
            for spike in spending.spikes(hour=hour):
                new = _record(account_id=account_id, spike=spike, at=at)
                if new:
                    found.append(new)
    return found


def _record(*, account_id: int, spike: _Spike, at: dt.datetime) -> Anomaly | None:
    """The new anomaly; None where the spike continues one that is known."""
    facts = {
        "observed_nanousd": spike.observed_nanousd,
        "expected_nanousd": spike.baseline.expected_nanousd,
        "threshold_nanousd": spike.baseline.threshold_nanousd,
        "model_id": spike.model_id,
    }
    near = spike.hour - COOL_DOWN
    # Records that came late can make a spike of the hour before a known one: that is the same spike too.
    known = (
        Anomaly.objects.filter(account_id=account_id, key_id=spike.key_id, hour__lte=spike.hour + _HOUR)
        .filter(Q(hour__gte=near) | Q(last_hour__gte=near))
        .order_by("-hour")
        .first()
    )
    if known is None:
        return Anomaly.objects.create(
            account_id=account_id, key_id=spike.key_id, hour=spike.hour, detected_at=at, **facts
        )
    if spike.hour > (known.last_hour or known.hour):
        Anomaly.objects.filter(pk=known.pk).update(last_hour=spike.hour)
    # Its worst hour is what is shown.
    Anomaly.objects.filter(pk=known.pk, observed_nanousd__lt=spike.observed_nanousd).update(**facts)
    return None


def claim_mail(*, at: dt.datetime) -> Anomaly | None:
    """Lease the oldest alert that nobody was told about, for MAIL_LEASE; None: there is none that is free.

    Told at least once: `mark_mailed` follows the sending, and a lease that ran out is taken over. A second copy after
    a crash is a nuisance; an alert that never arrives is a drained account.
    """
    free = Q(mail_claimed_at=None) | Q(mail_claimed_at__lt=at - MAIL_LEASE)
    for anomaly_id in (
        Anomaly.objects.filter(free, mailed_at=None).order_by("pk").values_list("pk", flat=True)
    ):
        if Anomaly.objects.filter(free, pk=anomaly_id, mailed_at=None).update(mail_claimed_at=at):
            return Anomaly.objects.select_related("account", "key", "model").get(pk=anomaly_id)
    return None


def mark_mailed(*, anomaly: Anomaly, at: dt.datetime) -> None:
    """The alert is out: it is never sent again."""
    Anomaly.objects.filter(pk=anomaly.pk).update(mailed_at=at)


def acknowledge(*, anomaly: Anomaly, actor: User, at: dt.datetime) -> None:
    """Somebody has seen it. The first to say so counts, and is in the audit log."""
    with transaction.atomic():
        if Anomaly.objects.filter(pk=anomaly.pk, acknowledged_at=None).update(acknowledged_at=at):
            auditing.record(
                account=anomaly.account_id,
                actor=actor,
                action="anomaly.acknowledged",
                subject_type="anomaly",
                subject_id=anomaly.pk,
            )
