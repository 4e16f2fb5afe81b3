"""The trail of acts on keys, money and members."""

from typing import Any

from accounts.models import Account, AuditEvent, User


def record(
    *,
    account: Account | int,
    actor: User | None,
    action: str,
    subject_type: str,
    subject_id: object,
    **detail: Any,
) -> AuditEvent:
    """Write one audit event. Call it inside the transaction of the act, so that neither exists without the other.

    `detail` must be JSON and never holds a secret.
    """
    return AuditEvent.objects.create(
        account_id=account.pk if isinstance(account, Account) else account,
        actor=actor,
        action=action,
        subject_type=subject_type,
        subject_id=str(subject_id),
        detail=detail,
    )
