"""A new name for an account."""

from django.db import transaction

from accounts import auditing
from accounts.models import Account, Membership, User


def may_rename(*, account: Account, user: User) -> bool:
    """Owners and admins may."""
    roles = (Membership.Role.OWNER, Membership.Role.ADMIN)
    return account.memberships.filter(user=user, role__in=roles).exists()


def rename(*, account: Account, name: str, actor: User) -> None:
    """Call the account by this name from now on. The same name again changes nothing."""
    with transaction.atomic():
        locked = Account.objects.select_for_update().get(pk=account.pk)
        if locked.name == name:
            return
        auditing.record(
            account=locked,
            actor=actor,
            action="account.renamed",
            subject_type="account",
            subject_id=locked.pk,
            before=locked.name,
            after=name,
        )
        Account.objects.filter(pk=locked.pk).update(name=name)
    account.name = name
