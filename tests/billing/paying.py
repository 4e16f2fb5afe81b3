"""Top-ups that are paid through the fake Stripe."""

from accounts.models import Account
from billing import topping_up
from billing.models import TopUp, Wallet
from billing.providers.provider import Checkout
from billing.providers.stripe import STRIPE
from catalog.money import NANO_PER_CENT
from tests import factories
from tests.billing.fake_stripe import GOOD, FakeStripe

USD = 10**9


def start(account: Account | None = None, *, cents: int = 2000, saves_method: bool = False) -> TopUp:
    account = account or factories.make_account()
    return topping_up.start(
        account=account,
        actor=account.members.get(),
        credit_nanousd=cents * NANO_PER_CENT,
        provider="stripe",
        at=factories.now(),
        saves_method=saves_method,
    )


def check_out(topup: TopUp) -> Checkout:
    checkout = STRIPE.start_checkout(
        topup=topup,
        return_url="https://tollgate.example/return/",
        cancel_url="https://tollgate.example/back/",
    )
    topping_up.keep_checkout(topup=topup, checkout=checkout)
    return checkout


def paid_there(fake: FakeStripe, *, number: str = GOOD, saves_method: bool = False) -> TopUp:
    """A top-up that was paid at Stripe, which has not told us yet."""
    topup = start(saves_method=saves_method)
    fake.pay(check_out(topup).session, number)
    return topup


def balance(topup: TopUp) -> int:
    wallet = Wallet.objects.filter(account=topup.account_id).first()
    return wallet.balance_nanousd if wallet else 0
