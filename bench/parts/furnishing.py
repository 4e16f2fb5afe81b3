"""Accounts for a benchmark, made inside an instance: `manage shell -c "from bench.parts import furnishing; …"`.

They go through the functions that pages and commands call, so what is measured is what a customer would have.
"""

import json
import sys
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from accounts import signing_up
from accounts.models import Plan, User
from billing import crediting
from catalog.money import nano_from_usd
from keys import issuing

_CREDIT = nano_from_usd(Decimal(100_000))


def furnish(count: int) -> None:
    """Make `count` accounts with credit and a key each; print their secrets as a JSON list."""
    plan, _ = Plan.objects.update_or_create(
        slug="bench",
        defaults={
            "name": "Bench",
            # Counted like any limit, and too high to refuse.
            "requests_per_minute": 2_000_000_000,
            "tokens_per_minute": 2_000_000_000,
            "requests_per_day": 7_200,
            "tokens_per_day": 200_000,
            "max_input_characters": None,
            "premium_models": True,
            "spends_credits": True,
        },
    )
    with transaction.atomic():
        json.dump([_open(plan, number) for number in range(count)], sys.stdout)


def _open(plan: Plan, number: int) -> str:
    at = timezone.now()
    user = User.objects.create_user(f"bench-{number}@tollgate.invalid")
    account = signing_up.open_account(user=user, plan=plan, at=at)
    crediting.grant(
        account=account,
        amount_nanousd=_CREDIT,
        reason="for a benchmark",
        actor=None,
        at=at,
        reference=f"bench:{number}",
    )
    return issuing.issue(account=account, actor=None, name="bench", at=at, owner=user).secret
