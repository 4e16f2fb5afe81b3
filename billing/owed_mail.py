"""E-mails that rows owe: leased to one sender at a time, and owed until somebody has said that they are out.

At least once: a sender that dies after the server took the mail leaves the row owing, and after the lease it is sent
again. A second copy is a nuisance; a receipt that never arrives is a question to the support.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from django.conf import settings
from django.db.models import QuerySet

from billing.models.mail_due import MailDue, OperatorsMailDue

T = TypeVar("T", bound=MailDue)
W = TypeVar("W", bound=OperatorsMailDue)
R = TypeVar("R")

LEASE = dt.timedelta(minutes=5)
# As many as somebody reads in one e-mail.
_MOST_AT_ONCE = 50
# What a task takes at once; a server that hangs uses it up with one e-mail (EMAIL_TIMEOUT).
_BITE_S = 10.0


def claim(*, rows: QuerySet[T], at: dt.datetime) -> T | None:
    """Lease the row that has owed its e-mail for longest, for LEASE; None: none is owed, or free."""
    free = rows.filter(mail_due_at__lte=at)
    for row_id, due_at in free.order_by("mail_due_at", "pk").values_list("pk", "mail_due_at")[:10]:
        if rows.filter(pk=row_id, mail_due_at=due_at).update(mail_due_at=at + LEASE):
            return rows.get(pk=row_id)
    return None


def a_bite(claim: Callable[[], R | None]) -> Iterator[R]:
    """What `claim` leases, one after another, for about ten seconds.

    What is left waits for the task's next tick, so that ten thousand receipts do not keep a notice of a dispute
    waiting, and a row is leased only when its e-mail is about to be sent.
    """
    ends_at = time.monotonic() + _BITE_S
    while time.monotonic() < ends_at and (row := claim()) is not None:
        yield row


def mark_sent(*, rows: QuerySet[T], row: T) -> None:
    """The e-mail is out. Where something new has happened since the claim, that is still owed."""
    rows.filter(pk=row.pk, mail_due_at=row.mail_due_at).update(mail_due_at=None)


def claim_for_operators(*, rows: QuerySet[W], at: dt.datetime, most: int = _MOST_AT_ONCE) -> list[W]:
    """Lease the rows that owe the operators an e-mail, as many as one holds; none while there is nobody to tell."""
    if not settings.OPERATOR_EMAILS:
        return []
    free = rows.filter(operators_mail_due_at__lte=at).order_by("operators_mail_due_at", "pk")
    leased = [
        row_id
        for row_id, due_at in free.values_list("pk", "operators_mail_due_at")[:most]
        if rows.filter(pk=row_id, operators_mail_due_at=due_at).update(operators_mail_due_at=at + LEASE)
    ]
    return list(rows.filter(pk__in=leased).order_by("pk"))


def mark_operators_told(*, rows: QuerySet[W], row: W, again_at: dt.datetime | None = None) -> None:
    """As `mark_sent`, of the e-mail to the operators; they are told again at `again_at`, if one is given."""
    rows.filter(pk=row.pk, operators_mail_due_at=row.operators_mail_due_at).update(
        operators_mail_due_at=again_at
    )
