"""Credit that requests hold when a dispute or a refund comes: it is taken as they leave it, and nobody else gets it."""

import pytest
from django.core import mail
from django.db import transaction
from pytest_django import Settings

from billing import collecting, expiring, refunding, wallets
from billing.models import Dispute, LedgerTransaction, Refund, TopUp, Wallet
from billing.tasks.refunds import collect_credit, mail_about_refunds
from catalog.pricing import TokenPrice
from tests import factories
from tests.billing.test_billing_pages import sign_in, text_of
from tests.billing.test_disputing import hear, shares
from tests.billing.test_refunding import balance, bought, legs, news, refund, spend
from tests.billing.test_topping_up import finish, start
from tests.billing.test_withheld_credit import DAY, grant, lefts, paid
from tests.concurrency import in_parallel
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage import opening
from usage.admission import Admission, Admitted, CreditsInsufficient
from usage.models import UsageRecord

USD = 10**9
CENT = 10**7
# A token of output costs a cent, and nothing else costs anything.
PRICE = TokenPrice(input_micro=0, output_micro=10_000_000_000, cached_input_micro=0, cache_write_micro=0)


def desk_of(topup: TopUp) -> Desk:
    return Desk.of(factories.make_key(topup.account).key)


def stream(desk: Desk, *, cents: int) -> Admission:
    """A request that may cost so much, and holds it."""
    request = asking(desk, cents=cents)
    [decision] = desk.admit(request)
    assert isinstance(decision, Admitted)
    return request


def asking(desk: Desk, *, cents: int) -> Admission:
    return desk.request(price=PRICE, output_limit=cents, max_output_tokens=10**6)


def is_refused(desk: Desk, *, cents: int = 1) -> bool:
    [decision] = desk.admit(asking(desk, cents=cents))
    return isinstance(decision, CreditsInsufficient)


def refunded_elsewhere(topup: TopUp, *, cents: int, status: str = "succeeded", name: str = "re_1") -> Refund:
    told = news(topup, cents=cents, status=status, refund=name)
    refund = refunding.hear(provider="sandbox", news=told, at=factories.now())
    assert refund is not None
    return refund


def to_take(topup: TopUp) -> int:
    return Wallet.objects.get(account=topup.account_id).to_take_nanousd


@pytest.mark.django_db
def test_a_dispute_takes_what_requests_held_as_they_leave_it() -> None:
    topup = bought(usd=100)
    desk = desk_of(topup)
    requests = [stream(desk, cents=960) for _ in range(10)]
    dispute = hear(topup, "open", cents=12_500)
    assert shares(dispute) == (4, 25, 96)
    assert (dispute.to_take_nanousd, to_take(topup)) == (96 * USD, 96 * USD)
    check_books()
    for request in requests[:3]:
        desk.end(request, output_tokens=10)
    collect_credit()
    dispute.refresh_from_db()
    assert dispute.frozen_nanousd == (400 + 3 * 950) * CENT
    check_books()
    for request in requests[3:]:
        desk.end(request, output_tokens=10)
    hear(topup, "lost", cents=12_500)
    assert shares(dispute) == (99, 25, 1)
    assert (balance(topup), to_take(topup)) == (0, 0)
    check_books(idle=True)


@pytest.mark.django_db
def test_what_a_request_leaves_is_not_there_for_the_next_one_even_before_it_is_taken() -> None:
    topup = bought(usd=20)
    desk = desk_of(topup)
    running = stream(desk, cents=2000)
    dispute = hear(topup, "open")
    desk.end(running, output_tokens=10)
    assert is_refused(desk)
    assert Wallet.objects.get(account=topup.account_id).available_nanousd == 0
    collecting.collect_due(at=factories.now())
    assert is_refused(desk)
    dispute.refresh_from_db()
    assert dispute.frozen_nanousd == 1990 * CENT
    check_books(idle=True)


@pytest.mark.django_db
def test_a_request_that_is_admitted_with_the_one_that_ends_does_not_get_what_it_leaves() -> None:
    """However constant the traffic of an account is, so much so that batches end requests and admit others."""
    topup = bought(usd=20)
    desk = desk_of(topup)
    running, next_one = stream(desk, cents=2000), asking(desk, cents=1)
    hear(topup, "open")
    running.finished.outcome, running.finished.output_tokens = UsageRecord.Outcome.COMPLETED, 10
    with transaction.atomic():
        connection = wallets.borrowed_connection()
        books = opening.open_books(connection, admissions=[next_one], ended=[running.finished])
        assert books.end(running.finished)
        decision = books.admit(next_one)
        books.write(connection)
    assert isinstance(decision, CreditsInsufficient)
    assert (decision.available_nanousd, decision.held_nanousd) == (0, 1990 * CENT)


@pytest.mark.django_db
def test_a_request_that_runs_still_pays_its_own_way() -> None:
    """And what it costs beyond its hold is the platform's: what it could be taken from is waited for."""
    topup = bought(usd=20)
    desk = desk_of(topup)
    within, beyond = stream(desk, cents=1000), stream(desk, cents=1000)
    hear(topup, "open")
    desk.end(within, output_tokens=400)
    desk.end(beyond, output_tokens=1200)
    assert within.finished.charged_nanousd == 400 * CENT
    assert (beyond.finished.charged_nanousd, beyond.finished.loss_nanousd) == (1000 * CENT, 200 * CENT)
    collecting.collect_due(at=factories.now())
    assert Dispute.objects.get().frozen_nanousd == 600 * CENT
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_what_requests_have_used_is_not_taken_from_the_next_payment() -> None:
    topup = bought(usd=20)
    desk = desk_of(topup)
    running = stream(desk, cents=2000)
    dispute = hear(topup, "open")
    desk.end(running, output_tokens=2000)
    finish(start(topup.account, usd=30))
    collecting.collect_due(at=factories.now())
    assert (balance(topup), to_take(topup)) == (30 * USD, 0)
    assert shares(dispute) == (0, 5, 20)
    assert not is_refused(desk, cents=3000)


@pytest.mark.django_db
def test_a_dispute_that_is_won_gives_back_what_was_taken_later_as_well_and_waits_no_more() -> None:
    topup = bought(usd=20)
    desk = desk_of(topup)
    first, second = stream(desk, cents=500), stream(desk, cents=1000)
    hear(topup, "open")
    desk.end(first, output_tokens=100)
    collecting.collect_due(at=factories.now())
    dispute = hear(topup, "won")
    assert (shares(dispute), balance(topup), to_take(topup)) == ((0, 0, 0), 19 * USD, 0)
    check_books()
    desk.end(second, output_tokens=100)
    collecting.collect_due(at=factories.now())
    assert balance(topup) == 18 * USD
    assert refunding.refundable(topup=topup).credit_nanousd == 18 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_what_a_lost_dispute_takes_later_is_no_loss_any_more_and_comes_back_if_it_is_won_after_all() -> None:
    topup = bought(usd=20)
    desk = desk_of(topup)
    running = stream(desk, cents=1500)
    hear(topup, "open")
    dispute = hear(topup, "lost")
    assert shares(dispute) == (5, 5, 15)
    desk.end(running, output_tokens=200)
    collecting.collect_due(at=factories.now())
    assert shares(dispute) == (18, 5, 2)
    assert legs(f"dispute-late:{dispute.pk}:0") == {"customer_credits": -13 * USD, "platform_loss": 13 * USD}
    check_books(idle=True)
    hear(topup, "won")
    assert balance(topup) == 18 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_a_refund_at_the_dashboard_takes_what_requests_held_and_gives_all_of_it_back_if_it_fails() -> None:
    topup = bought(usd=20)
    desk = desk_of(topup)
    first, second = stream(desk, cents=500), stream(desk, cents=1000)
    refund = refunded_elsewhere(topup, cents=2500, status="pending")
    assert (refund.credit_nanousd, refund.loss_nanousd, refund.to_take_nanousd) == (
        5 * USD,
        15 * USD,
        15 * USD,
    )
    desk.end(first, output_tokens=100)
    assert is_refused(desk)
    collecting.collect_due(at=factories.now())
    refund.refresh_from_db()
    assert (refund.credit_nanousd, refund.loss_nanousd, refund.to_take_nanousd) == (
        9 * USD,
        11 * USD,
        10 * USD,
    )
    assert legs(f"refund-late:{refund.pk}:0") == {"customer_credits": -4 * USD, "platform_loss": 4 * USD}
    check_books()
    refunding.hear(provider="sandbox", news=news(topup, status="failed"), at=factories.now())
    assert (balance(topup), to_take(topup)) == (19 * USD, 0)
    desk.end(second, output_tokens=100)
    check_books(idle=True)


@pytest.mark.django_db
def test_two_that_wait_take_one_after_the_other_and_never_more_than_there_is() -> None:
    topup = bought(usd=20)
    desk = desk_of(topup)
    first, second = stream(desk, cents=1200), stream(desk, cents=800)
    refund = refunded_elsewhere(topup, cents=1500)
    dispute = hear(topup, "open", cents=1000)
    assert (refund.to_take_nanousd, dispute.to_take_nanousd) == (12 * USD, 8 * USD)
    desk.end(first, output_tokens=100)
    collecting.collect_due(at=factories.now())
    refund.refresh_from_db()
    # The dispute all of its 8 USD, the refund what is left of the 11 USD; and only 8 USD are still held.
    assert (shares(dispute), refund.credit_nanousd, refund.to_take_nanousd) == ((8, 2, 0), 3 * USD, 8 * USD)
    check_books()
    desk.end(second, output_tokens=0)
    collecting.collect_due(at=factories.now())
    refund.refresh_from_db()
    assert (refund.credit_nanousd, refund.loss_nanousd, balance(topup)) == (11 * USD, 1 * USD, 0)
    check_books(idle=True)


@pytest.mark.django_db
def test_what_a_dispute_waits_for_goes_to_it_before_promotional_credit_expires() -> None:
    topup = bought(usd=20)
    spend(topup.account, 15)
    lot = grant(topup, usd=10)
    desk = desk_of(topup)
    running = stream(desk, cents=1500)
    hear(topup, "open")
    desk.end(running, output_tokens=100)
    later = factories.now() + 2 * DAY
    assert expiring.expire_due(at=later) == 0
    collecting.collect_due(at=later)
    assert (Dispute.objects.get().frozen_nanousd, balance(topup)) == (14 * USD, 0)
    hear(topup, "won")
    assert expiring.expire_due(at=later) == 9 * USD
    lot.refresh_from_db()
    assert (lot.expired_nanousd, balance(topup)) == (9 * USD, 5 * USD)
    check_books(idle=True)


@pytest.mark.django_db
def test_what_a_lot_loses_later_comes_back_to_it_as_well() -> None:
    topup = bought()
    spend(topup.account, 20)
    grant(topup, usd=20)
    desk = desk_of(topup)
    running = stream(desk, cents=1500)
    hear(topup, "open")
    assert lefts(topup) == [15]
    desk.end(running, output_tokens=100)
    collect_credit()
    assert lefts(topup) == [0]
    check_books(idle=True)
    hear(topup, "won")
    assert (lefts(topup), paid(topup), balance(topup)) == ([19], 0, 19 * USD)
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_requests_that_end_and_start_while_it_is_taken_leave_nothing_to_spend() -> None:
    topup = bought(usd=20)
    desk = desk_of(topup)
    requests = [stream(desk, cents=400) for _ in range(5)]
    hear(topup, "open")
    desks = [desk_of(topup) for _ in requests]

    def act(number: int) -> None:
        if number < len(requests):
            desks[number].end(requests[number], output_tokens=10)
            assert is_refused(desks[number])
        else:
            collecting.collect_due(at=factories.now())

    in_parallel(act, times=8)
    collecting.collect_due(at=factories.now())
    assert Dispute.objects.get().frozen_nanousd == 5 * 390 * CENT
    assert (balance(topup), to_take(topup)) == (0, 0)
    check_books(idle=True)


@pytest.mark.django_db
def test_pages_and_mails_say_what_is_still_to_take(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    topup = bought(usd=20)
    desk = desk_of(topup)
    running = stream(desk, cents=2000)
    hear(topup, "open", cents=500)
    refunded_elsewhere(topup, cents=1000)
    mail_about_refunds()
    to_operator = [message.body for message in mail.outbox if message.to == ["op@example.com"]]
    assert any("$4.00 of that by running requests" in body for body in to_operator)
    assert any("$8.00 of that" in body for body in to_operator)
    client = sign_in(topup.account)
    receipt = text_of(client, f"/billing/topups/{topup.pk}/")
    assert "$4.00</span> more" in receipt
    assert "$8.00</span> more" in receipt
    assert "$12.00 goes to a dispute or a refund" in text_of(client, "/billing/")
    desk.end(running, output_tokens=0)
    collecting.collect_due(at=factories.now())
    assert "Running requests hold" not in text_of(client, f"/billing/topups/{topup.pk}/")
    ledger = text_of(client, "/billing/ledger/")
    assert "Dispute: more of the payment&#x27;s credit, which requests had held" in ledger
    assert "Refund: the rest of its credit, which requests had held" in ledger
    assert LedgerTransaction.objects.filter(reference__contains="-late:").count() == 2


@pytest.mark.django_db
def test_what_a_failed_refund_gives_back_is_not_taken_for_what_requests_have_used() -> None:
    topup = bought()
    desk = desk_of(topup)
    made = refund(topup, usd="12")
    request = stream(desk, cents=800)
    dispute = hear(topup, "open", cents=1000)
    assert dispute.to_take_nanousd == 8 * USD
    # All of it is used, and nobody has looked since.
    desk.end(request, output_tokens=800)
    failed = news(topup, cents=1500, status="failed", refund=str(made.provider_refund), reference="r-1")
    refunding.hear(provider="sandbox", news=failed, at=factories.now())
    collect_credit()
    dispute.refresh_from_db()
    assert (dispute.frozen_nanousd, dispute.to_take_nanousd, balance(topup)) == (0, 0, 12 * USD)
    check_books(idle=True)
