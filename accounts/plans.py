"""Plans and standing of an account. Each change raises its policy version, so the gateway sees it before it admits."""

from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from accounts import auditing
from accounts.models import Account, Plan, User

PLANS: dict[str, dict[str, Any]] = {
    Plan.BASIC: {
        "name": "Basic",
        "requests_per_minute": 10,
        "tokens_per_minute": None,
        "requests_per_day": 7_200,
        "tokens_per_day": 200_000,
        "max_input_characters": 200_000,
        "premium_models": False,
        "spends_credits": False,
    },
    Plan.PAY_AS_YOU_GO: {
        "name": "Pay as you go",
        "requests_per_minute": 3_000,
        "tokens_per_minute": 10_000_000,
        "requests_per_day": 7_200,
        "tokens_per_day": 200_000,
        "max_input_characters": None,
        "premium_models": True,
        "spends_credits": True,
    },
}


def seed_plans() -> None:
    """Make the plans that are missing. An operator's change to an existing plan stays."""
    for slug, facts in PLANS.items():
        Plan.objects.get_or_create(slug=slug, defaults=facts)


def touch_policy(*, accounts: QuerySet[Account]) -> None:
    """Make the gateway read these accounts anew before it admits another of their requests."""
    accounts.update(policy_version=F("policy_version") + 1)


def change_plan(*, account: Account, plan: Plan, actor: User | None) -> None:
    """Move the account to the plan, at once for every request that starts after this commits."""
    with transaction.atomic():
        # The account alone, and not its plan: who changes a plan locks that first and then its accounts. No key of it
        # changes, so whoever posts to the ledger for it does not wait.
        own = Account.objects.select_for_update(of=("self",), no_key=True)
        locked = own.select_related("plan").get(pk=account.pk)
        if locked.plan_id == plan.pk:
            return
        auditing.record(
            account=locked,
            actor=actor,
            action="account.plan_changed",
            subject_type="account",
            subject_id=locked.pk,
            before=locked.plan.slug,
            after=plan.slug,
        )
        Account.objects.filter(pk=locked.pk).update(plan=plan, policy_version=F("policy_version") + 1)
    account.refresh_from_db()


def suspend(*, account: Account, actor: User | None, reason: str) -> None:
    """Refuse every further request of the account. Its keys, money and history stay."""
    _set_status(
        account=account,
        status=Account.Status.SUSPENDED,
        actor=actor,
        action="account.suspended",
        reason=reason,
    )


def reinstate(*, account: Account, actor: User | None) -> None:
    """Serve a suspended account again."""
    _set_status(account=account, status=Account.Status.ACTIVE, actor=actor, action="account.reinstated")


def _set_status(*, account: Account, status: str, actor: User | None, action: str, **detail: str) -> None:
    with transaction.atomic():
        changed = (
            Account.objects.filter(pk=account.pk)
            .exclude(status=status)
            .update(status=status, policy_version=F("policy_version") + 1)
        )
        if changed:
            auditing.record(
                account=account,
                actor=actor,
                action=action,
                subject_type="account",
                subject_id=account.pk,
                **detail,
            )
    account.refresh_from_db()
