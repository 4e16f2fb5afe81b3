"""What is foreseen of a batch is what PostgreSQL answers, or nothing is written."""

import datetime as dt
import random

import pytest
from django.db import transaction
from psycopg.errors import SerializationFailure

from accounts.models import Plan
from billing import wallets
from billing.models import Hold, Wallet
from tests.factories import make_budget, make_key, now
from tests.invariants import check_books
from tests.usage.clerk import Clerk
from tests.usage.desk import Desk
from usage.admission import Admission, Admitted
from usage.batches import execute
from usage.books import Books
from usage.minutes import Minute
from usage.models import MinuteGap
from usage.opening import Question

USD = 10**9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.django_db
def test_what_is_foreseen_is_what_is_found(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    paying, free = Desk(credit="0.002"), Desk(plan=Plan.BASIC)
    second = Desk.of(make_key(paying.account).key)
    make_budget(second.key, limit_nanousd=USD // 1000)
    desks, clerk = [paying, free, second], Clerk()
    running: list[Admission] = []
    for _ in range(40):
        ended = []
        for request in chance.sample(running, k=min(len(running), chance.randrange(3))):
            running.remove(request)
            request.finished.outcome = chance.choice(["completed", "failed", "refused"])
            request.finished.input_tokens, request.finished.output_tokens = 25, chance.randrange(60)
            ended.append(request.finished)
        asking = [
            desk.request(
                draws_allowance=desk is free or chance.random() < 0.3, spends_credits=desk is not free
            )
            for desk in chance.choices(desks, k=chance.randrange(4))
        ]
        if not asking and not ended:
            continue
        for request, decision in zip(asking, clerk.batch(*asking, ended=ended), strict=True):
            if isinstance(decision, Admitted):
                running.append(request)
    # All but the first batches of each account and key.
    assert clerk.foreseen > 20
    clerk.batch(ended=[request.finished for request in running])
    check_books(idle=True)


@pytest.mark.django_db
def test_a_foreseen_batch_is_written_in_one_call() -> None:
    desk, clerk = Desk(credit="1"), Clerk()
    clerk.batch(desk.request())
    decisions = clerk.attempt(desk.request(), desk.request())
    assert decisions is not None
    assert all(isinstance(decision, Admitted) for decision in decisions)
    assert Hold.objects.count() == 3
    check_books()


@pytest.mark.django_db
def test_the_minute_of_a_key_of_which_redis_has_missed_a_request_is_asked_until_the_gap_has_ended() -> None:
    desk, clerk = Desk(credit="1"), Clerk()
    decided = Minute(99, None, 5, is_decided=True)
    clerk.batch(desk.request(minute=decided))
    MinuteGap.objects.create(
        key_id=desk.key.pk, ends_at=now() + dt.timedelta(minutes=1)
    )  # by another process
    assert clerk.attempt(desk.request(minute=decided)) is None
    for _ in range(20):
        clerk.batch(desk.request(minute=decided))
    MinuteGap.objects.update(ends_at=now())
    # One that reads that it has ended, and those for which an account is asked that others write to.
    for _ in range(16):
        clerk.batch(desk.request(minute=decided))
    assert clerk.foreseen == 0
    clerk.batch(desk.request(minute=decided))
    assert clerk.foreseen == 1


@pytest.mark.django_db
def test_an_account_that_others_write_to_is_asked_first_for_a_while() -> None:
    desk, clerk = Desk(credit="1"), Clerk()
    clerk.batch(desk.request())
    clerk.foresight.was_wrong([desk.account.pk])
    for _ in range(16):
        clerk.batch(desk.request())
    assert clerk.foreseen == 0
    clerk.batch(desk.request())
    assert clerk.foreseen == 1


@pytest.mark.django_db
def test_nothing_is_foreseen_of_what_was_never_read() -> None:
    desk, other, clerk = Desk(credit="1"), Desk(credit="1"), Clerk()
    clerk.batch(desk.request())
    for unread in (
        other.request(),
        Desk.of(make_key(desk.account).key).request(),
        desk.request(draws_allowance=True),
    ):
        assert clerk.foresight.of(Question.of(admissions=[unread], ended=[])) is None


@pytest.mark.django_db(transaction=True)
def test_a_hold_that_went_without_its_wallets_lock_stops_the_batch() -> None:
    desk = Desk(credit="1")
    request = desk.request()
    desk.admit(request)
    with pytest.raises(SerializationFailure, match="1 of 1 holds are gone, or others than were read"):
        _end_while_its_hold_vanishes(request)
    assert Wallet.objects.get(account=desk.account).held_nanousd > 0
    check_books()


@transaction.atomic
def _end_while_its_hold_vanishes(request: Admission) -> None:
    raw = wallets.borrowed_connection()
    question = Question.of(admissions=(), ended=[request.finished])
    opened = Books.of(execute(raw, question.call()).fetchall()[0][0])
    Hold.objects.all().delete()
    opened.end(request.finished)
    opened.write(raw)
