"""The e-mail that says that credit runs low: once, until the balance has recovered above the threshold."""

import datetime as dt

from django.db import connection, transaction
from django.urls import reverse

from accounts import auditing, mailing
from accounts.models import Account, User
from billing.models import BalanceAlert, Wallet
from billing.models.balance_alerts import DEFAULT_THRESHOLD_NANOUSD
from catalog.money import usd_string

# By balance, not by what is available: a hold is a worst case that mostly comes back.
_RECOVERED = """
    UPDATE billing_balancealert l SET told_at = NULL, mail_due_at = NULL
    FROM billing_wallet w
    WHERE w.account_id = l.account_id AND l.told_at IS NOT NULL AND w.balance_nanousd > l.threshold_nanousd
"""
# Whoever sets `told_at` has the row owe the e-mail: made here for an account that has not chosen, it is what two
# workers meet at. Credit that never was cannot run low.
_FALLEN = """
    INSERT INTO billing_balancealert AS l (account_id, is_on, threshold_nanousd, told_at, mail_due_at)
    SELECT w.account_id, true, coalesce(own.threshold_nanousd, %(default)s), %(at)s, %(at)s
    FROM billing_wallet w
    JOIN accounts_account a ON a.id = w.account_id AND a.status = 'active'
    JOIN accounts_plan p ON p.id = a.plan_id AND p.spends_credits
    LEFT JOIN billing_balancealert own ON own.account_id = w.account_id
    WHERE w.balance_nanousd < coalesce(own.threshold_nanousd, %(default)s)
        AND coalesce(own.is_on, true) AND own.told_at IS NULL
        AND EXISTS (SELECT FROM billing_ledgeraccount c
            WHERE c.kind = 'customer_credits' AND c.account_id = w.account_id)
    ORDER BY w.account_id
    ON CONFLICT (account_id) DO UPDATE SET told_at = excluded.told_at, mail_due_at = excluded.mail_due_at
    WHERE l.told_at IS NULL AND l.is_on
    RETURNING account_id
"""


def choose(
    *, account: Account, is_on: bool, threshold_nanousd: int, actor: User | None, at: dt.datetime
) -> BalanceAlert:
    """Set when the account wants to be told. Another threshold is judged anew, whatever was told before."""
    with transaction.atomic():
        alert, _ = BalanceAlert.objects.select_for_update().get_or_create(account=account)
        if alert.threshold_nanousd != threshold_nanousd or (is_on and not alert.is_on):
            alert.told_at = alert.mail_due_at = None
        alert.is_on, alert.threshold_nanousd = is_on, threshold_nanousd
        alert.save()
        auditing.record(
            account=account,
            actor=actor,
            action="balance_alert.set",
            subject_type="account",
            subject_id=account.pk,
            is_on=is_on,
            threshold_usd=usd_string(threshold_nanousd),
        )
    return alert


def notice(*, at: dt.datetime) -> list[int]:
    """Have the accounts owe an e-mail whose balance has fallen below their threshold; returns which."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_RECOVERED)
        cursor.execute(_FALLEN, {"default": DEFAULT_THRESHOLD_NANOUSD, "at": at})
        return [account_id for (account_id,) in cursor.fetchall()]


def mail(*, alert: BalanceAlert) -> None:
    """Say how much is left, and how to buy more. Raises mailing.SendingErrors."""
    mailing.send(
        subject="Your credit is running low",
        template="billing/mail/low_balance.txt",
        context={
            "account": alert.account,
            "wallet": Wallet.objects.get(account=alert.account_id),
            "alert": alert,
            "buy_url": mailing.public_url(reverse("billing:buy")),
            "alerts_url": mailing.public_url(reverse("billing:alerts")),
        },
        to=mailing.recipients(account=alert.account),
    )
