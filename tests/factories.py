"""Plain functions that make what tests need, through the same domain functions that pages use."""

import datetime as dt
import itertools
from decimal import Decimal
from typing import Any

from accounts.models import Account, Membership, Plan, User
from billing import crediting
from billing.budgets import Scope
from billing.models import Budget
from catalog.models import Model, Price, Provider, Upstream
from catalog.money import nano_from_usd
from keys import issuing
from keys.models import ApiKey
from usage import budgeting

_numbers = itertools.count(1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def make_user(email: str = "", **fields: Any) -> User:
    return User.objects.create_user(email or f"user{next(_numbers)}@example.com", "correct horse 9", **fields)


def make_account(*, plan: str = Plan.BASIC, credit: str = "0", user: User | None = None) -> Account:
    """An account with an owner, on the plan, with this much credit in USD."""
    user = user or make_user()
    account = Account.objects.create(name=user.email, plan=Plan.objects.get(slug=plan))
    Membership.objects.create(account=account, user=user, role=Membership.Role.OWNER)
    if Decimal(credit):
        crediting.grant(
            account=account,
            amount_nanousd=nano_from_usd(Decimal(credit)),
            reason="for a test",
            actor=None,
            at=now(),
            reference=f"test-grant:{next(_numbers)}",
        )
    return account


def make_key(account: Account | None = None, *, name: str = "test key", **policy: Any) -> issuing.IssuedKey:
    """A key of the account with its secret: `.key` and `.secret`."""
    account = account or make_account()
    return issuing.issue(account=account, actor=None, name=name, at=now(), **policy)


def make_budget(
    of: ApiKey | Account,
    *,
    limit_nanousd: int,
    period: str = Budget.Period.TOTAL,
    environment: str = "",
    at: dt.datetime | None = None,
    **rest: Any,
) -> Budget:
    """A budget of a key, or of an account or an environment of it."""
    scope = Scope.of_key(of) if isinstance(of, ApiKey) else Scope(of.pk, environment=environment)
    return budgeting.set_budget(
        scope=scope,
        period=period,
        limit_nanousd=limit_nanousd,
        at=at or now(),
        **{"actor": None, **rest},
    )


def make_model(
    slug: str = "",
    *,
    tier: str = Model.Tier.BASIC,
    input_price: str = "1",
    output_price: str = "2",
    cached_price: str | None = None,
    cache_write_price: str | None = None,
    context_window: int = 100_000,
    max_output_tokens: int | None = 10_000,
    **fields: Any,
) -> Model:
    """A priced model with one upstream."""
    slug = slug or f"model-{next(_numbers)}"
    provider, _ = Provider.objects.get_or_create(
        slug="acme",
        defaults={"name": "Acme", "base_url": "https://acme.example/v1", "key_env": "ACME_API_KEY"},
    )
    model = Model.objects.create(
        slug=slug,
        name=slug,
        provider=provider,
        tier=tier,
        context_window=context_window,
        max_output_tokens=max_output_tokens,
        **fields,
    )
    Price.objects.create(
        model=model,
        starts_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        input_usd_per_mtok=Decimal(input_price),
        output_usd_per_mtok=Decimal(output_price),
        cached_input_usd_per_mtok=None if cached_price is None else Decimal(cached_price),
        cache_write_usd_per_mtok=None if cache_write_price is None else Decimal(cache_write_price),
    )
    Upstream.objects.create(model=model, provider=provider, upstream_model=slug)
    return model
