"""A bank that disputes another amount than before: the difference is booked, and the later amount counts."""

import datetime as dt
import itertools
from importlib import import_module

import pytest
from django.core import mail
from django.db import connection

from accounts.models import AuditEvent
from billing import disputing, statement, webhooks
from billing.models import Dispute, LedgerTransaction, TopUp, WebhookEvent
from billing.providers.provider import DisputeChanged, WebhookMessage
from billing.tasks.refunds import collect_credit, mail_about_refunds
from tests import factories
from tests.billing.test_collecting import desk_of, stream
from tests.billing.test_disputing import AT, hear, shares
from tests.billing.test_refunding import balance, bought, legs, refund, spend
from tests.billing.test_topping_up import finish, start
from tests.billing.test_withheld_credit import grant, lefts, paid
from tests.concurrency import in_parallel
from tests.invariants import check_books

pytestmark = pytest.mark.django_db
USD = 10**9
DAY = dt.timedelta(days=1)


def tell(topup: TopUp, number: int, status: str, *, cents: int, days: int) -> WebhookEvent:
    """As a webhook of that number, of something that happened so many days after the beginning."""
    news = DisputeChanged("dp_1", topup.provider_payment, cents, "usd", "fraudulent", status)
    message = WebhookMessage(f"evt_{number}", "dispute", AT + days * DAY, news)
    event = webhooks.record(provider="sandbox", message=message, at=factories.now())
    webhooks.process(event=event, at=factories.now())
    event.refresh_from_db()
    return event


def test_what_is_disputed_less_is_released() -> None:
    topup = bought()
    hear(topup, "open")
    dispute = hear(topup, "open", cents=1000)
    assert (shares(dispute), dispute.amount_nanousd, balance(topup)) == ((8, 2, 0), 10 * USD, 12 * USD)
    assert legs(f"dispute-changed:{dispute.pk}:0") == {"customer_credits": 12 * USD, "disputes": -12 * USD}
    check_books(idle=True)


def test_what_is_disputed_more_is_frozen_too_each_time_under_a_reference_of_its_own() -> None:
    topup = bought()
    for cents, frozen in ((500, 4), (1000, 8), (2500, 20), (500, 4)):
        assert (shares(hear(topup, "open", cents=cents))[0], balance(topup)) == (frozen, (20 - frozen) * USD)
        check_books(idle=True)
    dispute = Dispute.objects.get()
    moved = LedgerTransaction.objects.filter(reference__startswith=f"dispute-changed:{dispute.pk}:")
    assert sorted(moved.values_list("reference", flat=True)) == [
        f"dispute-changed:{dispute.pk}:{number}" for number in range(3)
    ]
    newest = statement.lines(account=topup.account).rows[0]
    assert "the bank disputes another amount than before" in newest.text
    assert (newest.amount_nanousd, newest.topup_id) == (16 * USD, topup.pk)


def test_it_is_lost_with_the_amount_that_it_has_at_last() -> None:
    topup = bought()
    hear(topup, "open", cents=1000)
    dispute = hear(topup, "lost", cents=2000)
    assert (dispute.status, shares(dispute), balance(topup)) == ("lost", (16, 4, 0), 4 * USD)
    assert legs(f"dispute-lost:{dispute.pk}")["cash_clearing"] == 20 * USD
    check_books(idle=True)


def test_it_is_won_whatever_its_amount_and_nothing_is_frozen_for_that() -> None:
    topup = bought()
    hear(topup, "open", cents=1000)
    dispute = hear(topup, "won", cents=2500)
    assert (dispute.status, dispute.amount_nanousd, balance(topup)) == ("won", 25 * USD, 20 * USD)
    assert not LedgerTransaction.objects.filter(reference__startswith="dispute-changed").exists()
    check_books(idle=True)


def test_of_one_that_was_won_the_amount_alone_changes_and_counts_if_it_is_lost_after_all() -> None:
    topup = bought()
    hear(topup, "open")
    hear(topup, "won")
    mail.outbox.clear()
    Dispute.objects.update(mail_due_at=None)
    dispute = hear(topup, "won", cents=1000)
    assert (dispute.amount_nanousd, dispute.mail_due_at, balance(topup)) == (10 * USD, None, 20 * USD)
    assert shares(hear(topup, "lost", cents=1000)) == (8, 2, 0)
    check_books(idle=True)


@pytest.mark.parametrize("status", ["open", "lost"])
def test_what_is_lost_with_another_amount_is_left_to_a_person(status: str) -> None:
    topup = bought()
    hear(topup, "lost")
    with pytest.raises(disputing.DisputeDiffers, match="lost with another amount"):
        hear(topup, status, cents=2400)
    dispute = Dispute.objects.get()
    assert (dispute.status, dispute.amount_nanousd, shares(dispute)) == ("lost", 25 * USD, (20, 5, 0))
    check_books(idle=True)


def test_what_was_lost_and_is_won_with_another_amount_comes_back_as_it_went() -> None:
    topup = bought()
    hear(topup, "lost")
    dispute = hear(topup, "won", cents=2400)
    assert (dispute.status, dispute.amount_nanousd, balance(topup)) == ("won", 24 * USD, 20 * USD)
    assert legs(f"dispute-won:{dispute.pk}")["cash_clearing"] == -25 * USD
    check_books(idle=True)


def test_of_spent_credit_no_more_is_taken_than_the_amount_has_grown_by() -> None:
    topup = bought()
    spend(topup.account, 20)
    assert shares(hear(topup, "open", cents=1000)) == (0, 2, 8)
    finish(start(topup.account, usd=30))
    # What was spent stays lost, and the new payment pays only for what is disputed more.
    assert shares(hear(topup, "open", cents=1500)) == (4, 3, 8)
    assert shares(hear(topup, "open", cents=1250)) == (4, 2, 6)
    assert shares(hear(topup, "open", cents=250)) == (2, 0, 0)
    assert balance(topup) == 28 * USD
    check_books(idle=True)


def test_what_went_back_otherwise_meanwhile_is_nobodys_credit() -> None:
    topup = bought()
    hear(topup, "open", cents=1000)
    refund(topup, usd="12")
    dispute = hear(topup, "open", cents=2500)
    assert shares(dispute) == (8, 2, 15)
    hear(topup, "lost", cents=2500)
    check_books(idle=True)


def test_what_requests_hold_is_waited_for_as_the_amount_says() -> None:
    topup = bought()
    desk = desk_of(topup)
    request = stream(desk, cents=2000)
    told = []
    for cents in (2500, 1000, 1500):
        dispute = hear(topup, "open", cents=cents)
        told.append((dispute.frozen_nanousd, dispute.to_take_nanousd))
        check_books()
    assert told == [(0, 20 * USD), (0, 8 * USD), (0, 12 * USD)]
    desk.end(request, output_tokens=100)
    collect_credit()
    assert shares(Dispute.objects.get()) == (12, 3, 0)
    assert balance(topup) == 7 * USD
    check_books(idle=True)


def test_what_is_released_goes_to_whoever_waits_for_it() -> None:
    topup = bought()
    hear(topup, "open", cents=1500)
    desk = desk_of(topup)
    stream(desk, cents=800)
    other = hear(topup, "open", cents=1000, dispute="dp_2")
    assert other.to_take_nanousd == 8 * USD
    hear(topup, "open", cents=500)
    other.refresh_from_db()
    assert (other.frozen_nanousd, other.to_take_nanousd, balance(topup)) == (8 * USD, 0, 8 * USD)
    check_books()


def test_lots_have_what_is_released_before_paid_credit_and_the_last_to_expire_first() -> None:
    topup = bought()
    spend(topup.account, 10)
    for usd, days in ((4, 5), (6, 9), (3, None)):
        grant(topup, usd=usd, days=days)
    hear(topup, "open")
    assert (paid(topup), lefts(topup)) == (0, [0, 0, 3])
    hear(topup, "open", cents=1875)
    assert (paid(topup), lefts(topup)) == (0, [0, 5, 3])
    hear(topup, "open", cents=1250)
    assert (paid(topup), lefts(topup)) == (0, [4, 6, 3])
    hear(topup, "open", cents=625)
    assert (paid(topup), lefts(topup)) == (5, [4, 6, 3])
    hear(topup, "won", cents=625)
    assert (paid(topup), lefts(topup)) == (10, [4, 6, 3])
    check_books(idle=True)


# What happened on which day, in its order.
HAPPENED = [("open", 2500, 0), ("open", 1000, 1), ("open", 2000, 2)]


@pytest.mark.parametrize("told", list(itertools.permutations(HAPPENED)))
def test_the_latest_amount_counts_in_any_order(told: tuple[tuple[str, int, int], ...]) -> None:
    topup = bought()
    for _ in range(2):
        for number, (status, cents, days) in enumerate(told):
            assert tell(topup, number, status, cents=cents, days=days).outcome == "done"
        check_books(idle=True)
    assert shares(Dispute.objects.get()) == (16, 4, 0)


@pytest.mark.parametrize("verdict", ["won", "lost"])
def test_an_amount_that_was_overtaken_changes_nothing_of_a_decision(verdict: str) -> None:
    topup = bought()
    tell(topup, 1, verdict, cents=1000, days=2)
    assert tell(topup, 2, "open", cents=2500, days=0).outcome == "done"
    dispute = Dispute.objects.get()
    assert (dispute.status, dispute.amount_nanousd) == (verdict, 10 * USD)
    check_books(idle=True)


@pytest.mark.parametrize("amounts", [(2500, 1000), (1000, 2500)])
def test_of_two_amounts_in_the_same_second_either_may_be_the_last(amounts: tuple[int, int]) -> None:
    topup = bought()
    for number, cents in enumerate(amounts):
        tell(topup, number, "open", cents=cents, days=0)
    assert Dispute.objects.get().amount_nanousd == amounts[1] * 10**7
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_two_amounts_at_once_end_with_the_later_one() -> None:
    topup = bought()
    in_parallel(
        lambda number: tell(topup, number, "open", cents=(2500, 1000, 1500)[number % 3], days=number % 3),
        times=6,
    )
    assert shares(Dispute.objects.get()) == (12, 3, 0)
    check_books(idle=True)


def test_operator_and_account_are_told_of_the_new_amount() -> None:
    topup = bought()
    hear(topup, "open")
    mail_about_refunds()
    mail.outbox.clear()
    hear(topup, "open", cents=1000)
    mail_about_refunds()
    (told,) = mail.outbox
    assert told.subject == "A payment of $10.00 is disputed"
    actions = (
        AuditEvent.objects.filter(subject_type="dispute").order_by("pk").values_list("action", flat=True)
    )
    assert list(actions) == ["dispute.opened", "dispute.amount_changed"]


def test_disputes_of_before_have_their_amount_from_when_it_was_told_last() -> None:
    topup, other = bought(), bought()
    hear(other, "open", dispute="dp_2")
    tell(topup, 1, "open", cents=2500, days=3)
    Dispute.objects.update(amount_told_at=factories.now())
    with connection.cursor() as cursor:
        cursor.execute(import_module("billing.migrations.0018_told_in_any_order").TOLD_AT)
    dispute, silent = Dispute.objects.get(topup=topup), Dispute.objects.get(topup=other)
    assert dispute.amount_told_at == AT + 3 * DAY
    assert silent.amount_told_at == silent.opened_at
