"""What the account's people say of themselves for their accountant."""

from django.db import transaction

from accounts import auditing
from accounts.models import Account, Membership, User
from billing.models import BillingDetails


def may_change(*, account: Account, user: User) -> bool:
    """Owners and admins may."""
    roles = (Membership.Role.OWNER, Membership.Role.ADMIN)
    return account.memberships.filter(user=user, role__in=roles).exists()


def change(*, account: Account, actor: User, entered: dict[str, str]) -> BillingDetails:
    """Keep the details as entered, by their names; receipts that were issued do not change.

    The audit event names what has changed. Nothing changed: nothing is written.
    """
    with transaction.atomic():
        details, _ = BillingDetails.objects.select_for_update().get_or_create(account=account)
        changed = {name: value for name, value in entered.items() if getattr(details, name) != value}
        if changed:
            for name, value in changed.items():
                setattr(details, name, value)
            details.save(update_fields=list(changed))
            auditing.record(
                account=account,
                actor=actor,
                action="billing_details.changed",
                subject_type="account",
                subject_id=account.pk,
                changed=sorted(changed),
            )
    return details
