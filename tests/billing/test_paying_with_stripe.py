"""Buying credit where Stripe is offered: the choice, the way to its page and back, and a form that is sent twice."""

import datetime as dt

import pytest
from django.test import Client
from pytest_django import Settings

from billing import looking_up, topping_up
from billing.models import SavedPaymentMethod, TopUp
from billing.providers.provider import PaymentArrived
from billing.providers.stripe import STRIPE
from billing.tasks import payments
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD
from tests.billing.test_billing_pages import sign_in, text_of
from tests.concurrency import in_parallel
from tests.invariants import check_books

FORM = {"credit": "20", "seen_total": "2500", "token": "abc", "provider": "stripe"}


def token_on(client: Client) -> str:
    page = client.get("/billing/buy/").text
    return page.split('name="token" value="')[1].split('"')[0]


@pytest.mark.django_db
def test_the_page_offers_what_is_configured_and_the_first_is_chosen(fake_stripe: FakeStripe) -> None:
    page = text_of(sign_in(factories.make_account()), "/billing/buy/")
    assert page.index('value="stripe" checked') < page.index('value="sandbox"')
    assert "Sandbox, which takes no money" in page
    assert 'name="keep_method"' in page


@pytest.mark.django_db
def test_one_provider_is_no_choice(fake_stripe: FakeStripe, settings: Settings) -> None:
    settings.TOPUP_PROVIDERS = ["stripe"]
    client = sign_in(factories.make_account())
    assert 'name="provider"' not in text_of(client, "/billing/buy/")
    client.post("/billing/buy/", {"credit": "20", "seen_total": "2500"})
    assert TopUp.objects.get().provider == "stripe"


@pytest.mark.django_db
def test_a_provider_that_is_not_offered_is_no_choice(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    assert client.post("/billing/buy/", {**FORM, "provider": "shells"}).status_code == 422
    assert not TopUp.objects.exists()


@pytest.mark.django_db
def test_the_way_to_stripe_leads_over_a_page_of_ours(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    answer = client.post("/billing/buy/", FORM)
    topup = TopUp.objects.get()
    assert answer["Location"] == f"/billing/topups/{topup.pk}/pay/"
    page = client.get(answer["Location"]).text
    assert f'<meta http-equiv="refresh" content="0;url={topup.checkout_url}">' in page
    session = fake_stripe.objects[topup.checkout_session]
    assert session["success_url"] == f"http://testserver/billing/topups/{topup.pk}/return/"
    assert session["cancel_url"] == f"http://testserver/billing/topups/{topup.pk}/return/?left=1"
    assert (topup.saves_method, session["setup_future_usage"]) == (False, None)


@pytest.mark.django_db
def test_the_buyer_may_keep_the_method(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    client.post("/billing/buy/", {**FORM, "keep_method": "on"})
    topup = TopUp.objects.get()
    assert topup.saves_method
    assert fake_stripe.objects[topup.checkout_session]["setup_future_usage"] == "off_session"


@pytest.mark.django_db
def test_what_was_chosen_survives_the_confirmation(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    page = client.post(
        "/billing/buy/", {**FORM, "seen_total": "", "provider": "sandbox", "keep_method": "on"}
    ).text
    assert "Pay $25.00 with Sandbox" in page
    for field in (
        'name="provider" value="sandbox"',
        'name="token" value="abc"',
        'name="keep_method" value="on"',
    ):
        assert field in page


@pytest.mark.django_db
def test_a_form_that_is_sent_twice_is_one_top_up_and_one_payment_page(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    first, second = client.post("/billing/buy/", FORM), client.post("/billing/buy/", FORM)
    assert first["Location"] == second["Location"]
    assert TopUp.objects.count() == len(fake_stripe.of_kind("checkout.session")) == 1
    # Going back and choosing otherwise is another purchase, and so is another tab.
    client.post("/billing/buy/", {**FORM, "credit": "30", "seen_total": "3750"})
    client.post("/billing/buy/", {**FORM, "token": token_on(client)})
    assert TopUp.objects.count() == 3


@pytest.mark.django_db
def test_somebody_elses_token_is_another_purchase(fake_stripe: FakeStripe) -> None:
    for _ in range(2):
        sign_in(factories.make_account()).post("/billing/buy/", FORM)
    assert TopUp.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_ten_clicks_at_once_are_one_payment_page(fake_stripe: FakeStripe) -> None:
    account = factories.make_account()
    clients = [sign_in(account) for _ in range(10)]
    answers = in_parallel(lambda number: clients[number].post("/billing/buy/", FORM)["Location"], times=10)
    assert len(set(answers)) == 1
    assert TopUp.objects.count() == len(fake_stripe.of_kind("checkout.session")) == 1


@pytest.mark.django_db
def test_a_form_that_comes_again_after_the_payment_shows_what_became_of_it(fake_stripe: FakeStripe) -> None:
    account = factories.make_account()
    client = sign_in(account)
    client.post("/billing/buy/", FORM)
    topup = TopUp.objects.get()
    fake_stripe.pay(topup.checkout_session)
    arrived = STRIPE.look_up(topup=topup)
    assert isinstance(arrived, PaymentArrived)
    topping_up.take(provider="stripe", payment=arrived, at=factories.now())
    answer = client.post("/billing/buy/", FORM, follow=True)
    assert "$20.00</span> of credit is yours" in answer.text
    assert TopUp.objects.count() == 1
    check_books(idle=True)


@pytest.mark.django_db
def test_while_stripe_is_away_the_page_says_so_and_the_same_form_goes_on(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    fake_stripe.fail_next("drop-after", times=3)
    answer = client.post("/billing/buy/", FORM)
    assert answer.status_code == 503
    assert "Stripe does not answer. Nothing was charged; try again." in answer.text
    assert 'name="token" value="abc"' in answer.text
    assert client.post("/billing/buy/", FORM).status_code == 302
    assert TopUp.objects.count() == len(fake_stripe.of_kind("checkout.session")) == 1


@pytest.mark.django_db
def test_what_stripe_refuses_is_given_up_and_another_try_is_another_top_up(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    fake_stripe.key = "sk_test_another"
    answer = client.post("/billing/buy/", FORM)
    assert answer.status_code == 503
    assert "Payments are not set up correctly here." in answer.text
    assert 'name="token" value="abc"' not in answer.text
    assert TopUp.objects.get().status == "failed"


@pytest.mark.django_db
def test_an_outsider_sees_neither_the_way_nor_the_return(fake_stripe: FakeStripe) -> None:
    sign_in(factories.make_account()).post("/billing/buy/", FORM)
    topup = TopUp.objects.get()
    outsider = sign_in(factories.make_account())
    for page in ("pay", "return"):
        assert outsider.get(f"/billing/topups/{topup.pk}/{page}/").status_code == 404
        assert Client().get(f"/billing/topups/{topup.pk}/{page}/").status_code == 302


# --- Coming back -------------------------------------------------------------------------------------------


def bought(fake: FakeStripe) -> tuple[Client, TopUp, str]:
    client = sign_in(factories.make_account())
    client.post("/billing/buy/", FORM)
    topup = TopUp.objects.get()
    return client, topup, f"/billing/topups/{topup.pk}/return/"


@pytest.mark.django_db
def test_who_has_left_the_payment_page_can_go_on_or_choose_otherwise(fake_stripe: FakeStripe) -> None:
    client, topup, address = bought(fake_stripe)
    page = text_of(client, f"{address}?left=1")
    assert "You have not paid yet" in page
    assert f'href="/billing/topups/{topup.pk}/pay/"' in page
    assert "Choose another amount" in page
    assert "Waiting for the payment" in text_of(client, address)


@pytest.mark.django_db
def test_the_details_lead_to_the_payment_page_until_nothing_was_paid(fake_stripe: FakeStripe) -> None:
    client, topup, _address = bought(fake_stripe)
    details = f"/billing/topups/{topup.pk}/"
    assert f'href="{details}pay/"' in text_of(client, details)
    topping_up.give_up(provider="stripe", reference=topup.provider_reference, message="The page ran out.")
    page = text_of(client, details)
    assert f'href="{details}pay/"' not in page
    assert "The page ran out." in page


@pytest.mark.django_db
def test_a_payment_that_takes_long_is_explained_and_asked_for_less_often(fake_stripe: FakeStripe) -> None:
    client, topup, address = bought(fake_stripe)
    early, late = text_of(client, address), text_of(client, f"{address}?look=15")
    assert f'hx-get="{address}?look=1"' in early
    assert "you need not pay twice" not in early
    assert "you need not pay twice" in late
    assert f"the number of the top-up, {topup.pk}" in late
    assert 'hx-trigger="every 10s"' in late
    for nonsense in ("-1", "x", "9" * 5000):
        assert f'hx-get="{address}?look=1"' in text_of(client, f"{address}?look={nonsense}")


@pytest.mark.django_db
def test_a_page_that_has_run_out_leads_nowhere(fake_stripe: FakeStripe) -> None:
    client, topup, address = bought(fake_stripe)
    TopUp.objects.update(checkout_expires_at=factories.now() - dt.timedelta(seconds=1))
    assert client.get(f"/billing/topups/{topup.pk}/pay/")["Location"] == address
    assert "Go to the payment page" not in text_of(client, address)
    topping_up.give_up(provider="stripe", reference=topup.provider_reference, message="It ran <b>out</b>.")
    page = text_of(client, address)
    assert "Nothing was paid" in page
    assert "It ran &lt;b&gt;out&lt;/b&gt;." in page
    assert "hx-trigger" not in page


# --- Saved methods -----------------------------------------------------------------------------------------


def saved(fake: FakeStripe, client: Client) -> SavedPaymentMethod:
    """A method that was left with Stripe on its page."""
    client.post("/billing/buy/", {**FORM, "keep_method": "on", "token": token_on(client)})
    topup = TopUp.objects.latest("id")
    fake.pay(topup.checkout_session)
    TopUp.objects.filter(pk=topup.pk).update(created_at=topup.created_at - dt.timedelta(minutes=2))
    looking_up.look_up_due(at=factories.now())
    return SavedPaymentMethod.objects.latest("id")


@pytest.mark.django_db
def test_a_method_that_has_expired_is_not_offered_for_auto_top_up(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    first, _second = saved(fake_stripe, client), saved(fake_stripe, client)
    offer = f'action="/billing/methods/{first.pk}/default/"'
    today = factories.now().date()
    for last_day, is_offered in ((None, True), (today, True), (today - dt.timedelta(days=1), False)):
        SavedPaymentMethod.objects.filter(pk=first.pk).update(expires=last_day)
        page = text_of(client, "/billing/methods/")
        assert (offer in page) == is_offered
        assert ("Expired" in page) != is_offered


@pytest.mark.django_db
def test_saved_methods_are_listed_made_the_default_and_removed(fake_stripe: FakeStripe) -> None:
    account = factories.make_account()
    client = sign_in(account)
    assert "No payment method is saved" in text_of(client, "/billing/methods/")
    first, second = saved(fake_stripe, client), saved(fake_stripe, client)
    first.refresh_from_db()
    assert (first.is_default, second.is_default) == (False, True)
    assert "Visa ending in 4242" in text_of(client, "/billing/methods/")
    for _ in range(2):
        client.post(f"/billing/methods/{first.pk}/default/")
    first.refresh_from_db()
    assert first.is_default
    address = f"/billing/methods/{first.pk}/remove/"
    assert "Auto top-up uses it" in text_of(client, address)
    assert client.get(address).status_code == 200
    assert client.post(address)["Location"] == "/billing/methods/"
    assert client.post(address).status_code == 404
    removed = SavedPaymentMethod.objects.get(pk=first.pk)
    assert removed.removed_at is not None
    assert removed.forgotten_at is not None
    assert not removed.is_default
    assert fake_stripe.objects[first.method]["customer"] is None
    check_books(idle=True)


@pytest.mark.django_db
def test_a_method_that_stripe_could_not_forget_at_once_is_forgotten_later(fake_stripe: FakeStripe) -> None:
    client = sign_in(factories.make_account())
    method = saved(fake_stripe, client)
    for faults, is_forgotten in ((6, False), (0, True)):
        fake_stripe.fail_next("500", times=faults)
        if faults:
            client.post(f"/billing/methods/{method.pk}/remove/")
        payments.forget_payment_methods()
        method.refresh_from_db()
        assert (method.forgotten_at is not None) is is_forgotten
    assert "No payment method is saved" in text_of(client, "/billing/methods/")


@pytest.mark.django_db
def test_an_outsider_touches_no_method(fake_stripe: FakeStripe) -> None:
    method = saved(fake_stripe, sign_in(factories.make_account()))
    outsider = sign_in(factories.make_account())
    assert outsider.post(f"/billing/methods/{method.pk}/default/").status_code == 404
    assert outsider.post(f"/billing/methods/{method.pk}/remove/").status_code == 404
    assert "4242" not in text_of(outsider, "/billing/methods/")
    method.refresh_from_db()
    assert method.removed_at is None


@pytest.mark.django_db
@pytest.mark.parametrize("card", ["sandbox-card", "sandbox-card-declined"])
def test_the_sandbox_leaves_the_card_that_was_chosen(fake_stripe: FakeStripe, card: str) -> None:
    account = factories.make_account()
    client = sign_in(account)
    checkout = client.post("/billing/buy/", {**FORM, "provider": "sandbox", "keep_method": "on"})["Location"]
    assert f'value="{card}"' in text_of(client, checkout)
    client.post(f"{checkout}pay/", {"card": card})
    assert SavedPaymentMethod.objects.get(account=account).method == card
    assert account.wallet.balance_nanousd == 20 * USD
    # What is removed comes back with a later purchase that keeps it.
    client.post(f"/billing/methods/{SavedPaymentMethod.objects.get().pk}/remove/")
    again = {**FORM, "token": "def", "provider": "sandbox", "keep_method": "on"}
    client.post(f"{client.post('/billing/buy/', again)['Location']}pay/", {"card": card})
    assert [method.removed_at is None for method in SavedPaymentMethod.objects.order_by("id")] == [
        False,
        True,
    ]
