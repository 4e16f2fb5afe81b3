"""Holds of gateway processes that have died are released, once, and the requests appear as interrupted."""

import datetime as dt
import uuid

import pytest
from django.db import connection
from django.db.models import F

from billing.models import GatewayProcess, Hold
from tests.factories import now
from tests.invariants import check_books
from tests.usage.desk import PROCESS, Desk
from tests.usage.watching import watch
from usage import sweeping
from usage.models import HoldWatch, UsageRecord

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _old_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server may have started moments ago; these tests are about processes, not about its own start."""
    monkeypatch.setattr(
        sweeping,
        "_ORPHANS",
        sweeping._ORPHANS.replace("pg_postmaster_start_time()", "timestamptz '2020-01-01'"),
    )
    watch()


def beat(*, seconds_ago: float) -> None:
    GatewayProcess.objects.update_or_create(id=PROCESS)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_gatewayprocess SET heartbeat_at = clock_timestamp() - make_interval(secs => %s)",
            [seconds_ago],
        )


def test_a_silent_process_loses_its_holds_and_nothing_is_charged() -> None:
    desk = Desk(credit="1")
    on_credits, on_allowance = desk.request(), desk.request(draws_allowance=True)
    desk.admit(on_credits, on_allowance)
    beat(seconds_ago=31)

    assert sweeping.sweep(at=now()) == 2
    assert sweeping.sweep(at=now()) == 0

    assert desk.wallet.available_nanousd == 1_000_000_000
    assert (desk.allowance.requests, desk.allowance.held_tokens) == (0, 0)
    record = UsageRecord.objects.get(pk=on_credits.finished.id)
    assert (record.outcome, record.charged_nanousd, record.error_code) == ("interrupted", 0, "interrupted")
    assert record.model == desk.model
    assert not desk.end(on_credits, output_tokens=50)
    check_books(idle=True)


def test_a_hold_that_was_left_for_months_is_released_as_well() -> None:
    desk = Desk(credit="1")
    desk.admit(desk.request())
    beat(seconds_ago=31)
    assert sweeping.sweep(at=now() + dt.timedelta(days=90)) == 1
    assert UsageRecord.objects.get().outcome == "interrupted"
    check_books(idle=True)


def test_a_process_that_beats_keeps_its_holds() -> None:
    desk = Desk(credit="1")
    desk.admit(desk.request())
    beat(seconds_ago=20)

    assert sweeping.sweep(at=now()) == 0
    assert Hold.objects.count() == 1


def test_a_process_that_never_beat_is_judged_by_its_holds() -> None:
    desk = Desk(credit="1")
    request = desk.request(process_id=uuid.uuid4())
    desk.admit(request)
    assert sweeping.sweep(at=now()) == 0
    Hold.objects.update(placed_at=now() - dt.timedelta(seconds=40))

    assert sweeping.sweep(at=now()) == 1


def test_a_database_that_has_just_started_gives_its_clients_time(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(credit="1")
    desk.admit(desk.request())
    beat(seconds_ago=300)
    just_now = sweeping._ORPHANS.replace("timestamptz '2020-01-01'", "now() - interval '3 seconds'")
    monkeypatch.setattr(sweeping, "_ORPHANS", just_now)

    assert sweeping.sweep(at=now()) == 0


def test_a_sweep_that_could_not_look_for_a_while_gives_its_clients_time_as_well() -> None:
    """Whatever the reason: the database hung, or nobody could reach it, or the worker was down."""
    desk = Desk(credit="1")
    desk.admit(desk.request())
    beat(seconds_ago=300)
    later(seconds=20)

    assert sweeping.sweep(at=now()) == 0
    for _ in range(3):
        later(seconds=9)
        assert sweeping.sweep(at=now()) == 0
    later(seconds=9)
    assert sweeping.sweep(at=now()) == 1


def later(*, seconds: float) -> None:
    """As if so much time had passed since then."""
    passed = dt.timedelta(seconds=seconds)
    HoldWatch.objects.update(began_at=F("began_at") - passed, looked_at=F("looked_at") - passed)


def test_more_holds_than_one_batch_are_all_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 2)
    desk = Desk(credit="1")
    desk.admit(*[desk.request() for _ in range(5)])
    beat(seconds_ago=60)

    assert sweeping.sweep(at=now()) == 5
    check_books(idle=True)


def test_a_process_is_forgotten_an_hour_after_its_last_sign_of_life() -> None:
    beat(seconds_ago=3_700)

    sweeping.sweep(at=now())

    assert not GatewayProcess.objects.exists()
