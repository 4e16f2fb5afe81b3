"""Auto top-up in the browser: what it charges is seen before it is agreed to."""

from collections.abc import Iterator

import pytest
from django.core import mail
from django.test import Client

from accounts.models import Account, AuditEvent
from billing import payment_methods
from billing.models import AutoTopUp, SavedPaymentMethod, TopUp
from billing.providers.provider import SavedMethod
from billing.providers.sandbox import CARD, DECLINED_CARD
from billing.tasks import auto_topups
from billing.tasks.receipts import mail_receipts
from config.celery import app
from tests import factories
from tests.billing.saved_cards import USD, agree, balance, make_account, outcomes, save
from tests.billing.test_billing_pages import make_topup, sign_in
from tests.invariants import check_books

PAGE = "/billing/auto-top-up/"


@pytest.fixture
def account(db: None) -> Account:
    return make_account()


def typed(method: SavedPaymentMethod, **changes: str) -> dict[str, str]:
    return {
        "threshold": "10",
        "amount": "20",
        "monthly_cap": "100",
        "method": str(method.pk),
        **changes,
    }


@pytest.fixture
def _tasks_run_at_once() -> Iterator[None]:
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


def test_without_a_saved_method_the_page_says_how_to_leave_one(account: Account) -> None:
    page = sign_in(account).get(PAGE).text
    assert "No saved payment method" in page
    assert 'href="/billing/buy/"' in page
    assert "Nothing is bought without you." in page


def test_the_total_is_seen_before_it_is_agreed_to(account: Account) -> None:
    client, method = sign_in(account), save(account)
    assert "Sandbox ending in 4242" in client.get(PAGE).text
    shown = client.post(PAGE, typed(method))
    assert shown.status_code == 200
    assert 'id="buy-total">$25.00<' in shown.text
    assert "<strong>Sandbox ending in 4242</strong> is charged $25.00 without asking you again" in shown.text
    assert 'name="agreed_total" value="2500"' in shown.text
    assert not AutoTopUp.objects.exists()
    agreed = client.post(PAGE, typed(method, agreed_total="2500"), follow=True)
    assert "Auto top-up is on." in agreed.text
    assert "$20.00 of credit is bought with Sandbox ending in 4242, which is charged $25.00." in agreed.text
    auto = AutoTopUp.objects.get()
    assert (auto.is_on, auto.threshold_nanousd, auto.monthly_cap_nanousd) == (True, 10 * USD, 100 * USD)
    assert auto.agreed_by == account.members.get()
    assert AuditEvent.objects.get(action="auto_topup.switched_on").actor == auto.agreed_by
    assert "$20.00 below $10.00" in client.get("/billing/").text


def test_a_total_that_is_not_the_right_one_is_shown_again(account: Account) -> None:
    response = sign_in(account).post(PAGE, typed(save(account), agreed_total="2400"))
    assert "Agree and switch on" in response.text
    assert not AutoTopUp.objects.exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"amount": "1"}, "Choose an amount from"),
        ({"amount": ""}, "Give an amount in USD."),
        ({"threshold": "0"}, "Give $0.01 or more."),
        ({"monthly_cap": "24.99"}, "Each purchase charges $25.00; the month must allow one."),
        ({"method": "0"}, "cannot be charged any more"),
        ({"amount": "20.005"}, "whole cents"),
        ({"threshold": "100000000.01"}, "Give at most $100,000,000."),
        ({"monthly_cap": "1e999"}, "like 20 or 12.50"),
    ],
)
def test_what_makes_no_sense_is_refused(account: Account, changes: dict[str, str], problem: str) -> None:
    response = sign_in(account).post(PAGE, {**typed(save(account), agreed_total="2500"), **changes})
    assert response.status_code == 422
    assert problem in response.text
    assert not AutoTopUp.objects.exists()


def test_only_an_own_method_that_was_not_removed_can_be_chosen(account: Account) -> None:
    others, removed = save(factories.make_account()), save(account)
    payment_methods.remove(method=removed, actor=None, at=factories.now())
    save(account, DECLINED_CARD)
    for method in (others, removed):
        response = sign_in(account).post(PAGE, typed(method, agreed_total="2500"))
        assert response.status_code == 422
    assert not AutoTopUp.objects.exists()


def test_a_method_that_has_expired_is_refused(account: Account) -> None:
    method = save(account)
    SavedPaymentMethod.objects.update(expires="2020-01-31")
    response = sign_in(account).post(PAGE, typed(method, agreed_total="2500"))
    assert response.status_code == 422
    assert "cannot be charged any more" in response.text


def test_it_is_switched_off_at_once(account: Account) -> None:
    agree(account, save(account))
    client = sign_in(account)
    assert "Switch off at once" in client.get(PAGE).text
    page = client.post(f"{PAGE}off/", follow=True).text
    assert "Auto top-up is off." in page
    assert not AutoTopUp.objects.get().is_on
    assert client.get(f"{PAGE}off/").status_code == 405


def test_the_page_says_why_it_has_stopped(account: Account) -> None:
    agree(account, save(account))
    AutoTopUp.objects.update(is_on=False, off_reason="The fee has changed.", off_at=factories.now())
    assert "The fee has changed. Nothing is bought until" in sign_in(account).get(PAGE).text
    assert "The fee has changed." in sign_in(account).get("/billing/").text


def test_operators_read_what_was_agreed_to_and_edit_nothing(account: Account) -> None:
    auto = agree(account, save(account))
    operator = Client()
    operator.force_login(factories.make_user(is_staff=True, is_superuser=True))
    listed = operator.get("/admin/billing/autotopup/", {"q": account.members.get().email})
    assert "$100.00" in listed.text
    address = f"/admin/billing/autotopup/{auto.pk}/change/"
    assert "$25.00" in operator.get(address).text
    assert operator.post(address, {"is_on": ""}).status_code == 403


def test_outsiders_see_and_change_nothing(account: Account) -> None:
    agree(account, save(account))
    assert Client().get(PAGE).status_code == 302
    outsider = sign_in(factories.make_account())
    outsider.post(f"{PAGE}off/")
    assert AutoTopUp.objects.get().is_on
    assert "4242" not in outsider.get(PAGE).text


@pytest.mark.usefixtures("_tasks_run_at_once")
@pytest.mark.parametrize("card", [CARD, DECLINED_CARD])
def test_from_the_sandbox_card_to_the_automatic_purchase(account: Account, card: SavedMethod) -> None:
    client = sign_in(account)
    topup = make_topup(account, usd=5, is_paid=False)
    TopUp.objects.filter(pk=topup.pk).update(saves_method=True)
    is_good = card is CARD
    client.post(f"/billing/sandbox/{topup.provider_reference}/pay/", {"card": card.method})
    method = SavedPaymentMethod.objects.get(account=account)
    assert (method.last4, method.is_default) == (card.last4, True)
    client.post(PAGE, typed(method, threshold="100", agreed_total="2500"))
    auto_topups.top_up_due()
    assert outcomes(account) == ["paid" if is_good else "failed"]
    assert balance(account) == (34 if is_good else 14) * USD
    history = client.get(PAGE).text
    bought = TopUp.objects.get(origin="automatic")
    receipt = client.get(f"/billing/topups/{bought.pk}/").text
    assert f"auto top-up, agreed to by {account.members.get()}" in receipt
    assert f"/billing/topups/{bought.pk}/" in history
    assert ("The sandbox&#x27;s card was declined." in history) is not is_good
    check_books(idle=True)


@pytest.mark.usefixtures("_tasks_run_at_once")
def test_a_success_leaves_a_receipt(account: Account) -> None:
    agree(account, save(account))
    auto_topups.top_up_due()
    mail_receipts()
    (message,) = mail.outbox
    assert message.to == [account.members.get().email]
    assert len(message.attachments) == 1
