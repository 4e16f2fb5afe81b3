"""E-mails that rows owe: leased to one sender at a time, and owed until somebody has said that they are out.

At least once: a sender that dies after the server took the mail leaves the row owing, and after the lease it is sent
again. A second copy is a nuisance; a receipt that never arrives is a question to the support.
"""

import datetime as dt
from typing import TypeVar

from django.db.models import QuerySet

from billing.models.mail_due import MailDue

T = TypeVar("T", bound=MailDue)

LEASE = dt.timedelta(minutes=5)


def claim(*, rows: QuerySet[T], at: dt.datetime) -> T | None:
    """Lease the row that has owed its e-mail for longest, for LEASE; None: none is owed, or free."""
    free = rows.filter(mail_due_at__lte=at)
    for row_id, due_at in free.order_by("mail_due_at", "pk").values_list("pk", "mail_due_at")[:10]:
        if rows.filter(pk=row_id, mail_due_at=due_at).update(mail_due_at=at + LEASE):
            return rows.get(pk=row_id)
    return None


def mark_sent(*, rows: QuerySet[T], row: T) -> None:
    """The e-mail is out. Where something new has happened since the claim, that is still owed."""
    rows.filter(pk=row.pk, mail_due_at=row.mail_due_at).update(mail_due_at=None)
