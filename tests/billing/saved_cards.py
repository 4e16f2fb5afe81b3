"""Accounts that have left a payment method and agreed to auto top-up, in one line each."""

import datetime as dt

from django.db.models import F

from accounts.models import Account, Plan
from billing import auto_topping_up
from billing.models import AutoTopUp, SavedPaymentMethod, TopUp, Wallet
from billing.providers.provider import SavedMethod
from billing.providers.sandbox import CARD
from tests import factories
from tests.billing.fake_stripe import GOOD, FakeStripe

AT = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
USD = 10**9


def save(account: Account, card: SavedMethod = CARD, *, provider: str = "sandbox") -> SavedPaymentMethod:
    return SavedPaymentMethod.objects.create(
        account=account,
        provider=provider,
        customer=card.customer,
        method=card.method,
        brand=card.brand,
        last4=card.last4,
        expires=card.expires,
    )


def save_at(fake: FakeStripe, account: Account, number: str = GOOD) -> SavedPaymentMethod:
    """A card of that number at the fake Stripe."""
    customer = fake.add_customer()
    method = fake.add_method(number, customer)
    return save(account, SavedMethod(customer, method["id"], "visa", number[-4:], None), provider="stripe")


def agree(account: Account, method: SavedPaymentMethod, *, cap: int = 100, amount: int = 20) -> AutoTopUp:
    """Below $10, buy: in USD, with a fee of 25 %."""
    return auto_topping_up.switch_on(
        account=account,
        threshold_nanousd=10 * USD,
        amount_nanousd=amount * USD,
        monthly_cap_nanousd=cap * USD,
        method=method,
        actor=account.members.get(),
        at=AT,
    )


def make_account(*, credit: str = "9") -> Account:
    """On pay as you go, and below the threshold."""
    return factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit=credit)


def spend(account: Account, amount_nanousd: int) -> None:
    """Take it from the wallet alone: for tests that do not look at the books."""
    Wallet.objects.filter(account=account).update(balance_nanousd=F("balance_nanousd") - amount_nanousd)


def outcomes(account: Account) -> list[str]:
    """What became of the automatic top-ups, the oldest first."""
    bought = TopUp.objects.filter(account=account, origin="automatic").order_by("pk")
    return list(bought.values_list("status", flat=True))


def balance(account: Account) -> int:
    return Wallet.objects.get(account=account).balance_nanousd
