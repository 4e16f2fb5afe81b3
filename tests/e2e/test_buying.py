"""Buying credit in Chromium through a Stripe of our own: its page, the way back, and what arrives when."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.billing.fake_stripe import DECLINED, GOOD, FakeStripe
from tests.e2e.looking import Watched, sign_in
from tests.instance import Instance, installed

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("instance")]

EMAIL = "buyer@example.com"
_BUYER = f"""
from tests.e2e import furnishing
from tests.factories import make_account
make_account(user=furnishing._person("{EMAIL}"))
"""


@pytest.fixture(scope="module")
def stripe() -> Iterator[FakeStripe]:
    fake = FakeStripe().start()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def shop(stripe: FakeStripe) -> Iterator[Instance]:
    """An instance that takes payments through that Stripe, with somebody who wants to buy."""
    with installed() as instance:
        instance.start(
            extra_env={
                "TOPUP_PROVIDERS": "stripe,sandbox",
                "STRIPE_SECRET_KEY": stripe.key,
                "STRIPE_WEBHOOK_SECRETS": stripe.secret,
                "STRIPE_API_URL": stripe.url,
            }
        )
        instance.manage("shell", "-v", "0", "-c", _BUYER, check=True)
        stripe.webhook_url = f"{instance.url}/billing/webhooks/stripe/"
        yield instance


@pytest.fixture
def buyer(browser: Browser, shop: Instance) -> Iterator[Page]:
    context = browser.new_context(base_url=shop.url, viewport={"width": 1360, "height": 900})
    page = context.new_page()
    sign_in(page, EMAIL)
    yield page
    context.close()


def choose(page: Page, credit: str, total: str) -> None:
    """The amount, whose total stands there before anything is sent."""
    page.goto("/billing/buy/")
    page.get_by_label("Another amount").fill(credit)
    expect(page.locator("#buy-total")).to_have_text(total)


def to_stripe(page: Page, stripe: FakeStripe) -> None:
    page.get_by_role("button", name="Continue to payment").click()
    page.wait_for_url(f"{stripe.url}/pay/**")


def pay(page: Page, number: str = GOOD) -> None:
    page.get_by_label("Card number").fill(number)
    page.get_by_role("button", name="Pay").click()


def complaints(watched: Watched) -> list[str]:
    """What the browser did not like; a page that leads on at once takes the request for its icon with it."""
    return [problem for problem in watched.problems() if "favicon" not in problem]


def balance(page: Page) -> str:
    page.goto("/billing/")
    return page.locator(".figure-value").first.inner_text()


def test_credit_is_bought_and_the_page_notices_the_payment_by_itself(
    buyer: Page, shop: Instance, stripe: FakeStripe
) -> None:
    watched = Watched(buyer)
    assert balance(buyer) == "$0.00"
    choose(buyer, "30", "$37.50")
    buyer.get_by_label("Keep this payment method").check()
    to_stripe(buyer, stripe)
    expect(buyer.get_by_role("heading", name="Pay $37.50")).to_be_visible()
    expect(buyer.get_by_text("Fee (25 %): $7.50")).to_be_visible()
    pay(buyer, DECLINED)
    expect(buyer.get_by_role("alert")).to_have_text("Your card was declined.")
    assert complaints(watched) == []
    pay(buyer)
    # Stripe has not told us yet.
    expect(buyer.get_by_text("Waiting for the payment")).to_be_visible()
    buyer.reload()
    expect(buyer.get_by_text("Waiting for the payment")).to_be_visible()
    buyer.evaluate("window.isTheSamePage = true")
    assert set(stripe.deliver_all(is_reversed=True, times=2)) == {200}
    expect(buyer.get_by_text("$30.00 of credit is yours")).to_be_visible()
    assert buyer.evaluate("window.isTheSamePage")
    buyer.reload()
    expect(buyer.get_by_text("$30.00 of credit is yours")).to_be_visible()
    assert balance(buyer) == "$30.00"
    buyer.goto("/billing/methods/")
    expect(buyer.get_by_role("row").filter(has_text="Visa ending in 4242")).to_contain_text("For auto top-up")
    assert complaints(watched) == []
    audit = shop.manage("audit_ledger")
    assert audit.returncode == 0, audit.stdout


def test_who_turns_back_can_go_on_and_a_webhook_may_be_there_first(buyer: Page, stripe: FakeStripe) -> None:
    payments = len(stripe.of_kind("payment_intent"))
    choose(buyer, "12.34", "$15.43")
    to_stripe(buyer, stripe)
    page_of_stripe = buyer.url
    buyer.get_by_role("link", name="Back").click()
    expect(buyer.get_by_text("You have not paid yet")).to_be_visible()
    buyer.get_by_role("link", name="Go to the payment page").click()
    buyer.wait_for_url(page_of_stripe)
    # Paid in another window, and told of before the buyer comes back.
    stripe.pay(page_of_stripe.rpartition("/")[2])
    assert set(stripe.deliver_all()) == {200}
    buyer.go_back()
    expect(buyer.get_by_text("$12.34 of credit is yours")).to_be_visible()
    assert len(stripe.of_kind("payment_intent")) == payments + 1


def test_two_clicks_are_one_payment(buyer: Page, stripe: FakeStripe) -> None:
    before = len(stripe.of_kind("checkout.session"))
    choose(buyer, "50", "$62.50")
    buyer.get_by_role("button", name="Continue to payment").dblclick(no_wait_after=True)
    buyer.wait_for_url(f"{stripe.url}/pay/**")
    buyer.go_back()
    buyer.wait_for_url("**/billing/**")
    buyer.goto("/billing/buy/")
    assert len(stripe.of_kind("checkout.session")) == before + 1


def test_it_works_without_a_script(browser: Browser, shop: Instance, stripe: FakeStripe) -> None:
    context = browser.new_context(base_url=shop.url, java_script_enabled=False)
    page = context.new_page()
    sign_in(page, EMAIL)
    page.goto("/billing/buy/?credit=5")
    to_stripe(page, stripe)
    pay(page)
    expect(page.get_by_text("Waiting for the payment")).to_be_visible()
    stripe.deliver_all()
    # The webhook is answered when it is recorded; the worker credits it within a moment.
    arrived = page.get_by_text("$5.00 of credit is yours")
    for _ in range(20):
        page.reload()
        if arrived.is_visible():
            break
        page.wait_for_timeout(250)
    expect(arrived).to_be_visible()
    context.close()
