"""Whatever happens to an account's money in whatever order, and whoever dies of it: the books and a model agree.

`MONEY_EXAMPLES=500 ./tollgate test tests/billing/test_stateful.py -n0` looks longer, and at longer sequences.
"""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from pytest_django import Settings

from billing.models import Hold
from billing.providers import offering
from tests.billing.money.buying import COMPANY
from tests.billing.money.company import Killed, killed_at
from tests.billing.money.machine import GoingBack, MoneyMachine
from tests.usage.desk import Desk
from usage import sweeping

EXAMPLES = int(os.environ.get("MONEY_EXAMPLES", "0"))


@pytest.fixture(autouse=True)
def _world(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payment company that dies with us; and a database that did not start moments ago, for the sweep."""
    monkeypatch.setitem(offering._KNOWN, COMPANY.slug, COMPANY)
    settings.TOPUP_PROVIDERS = [COMPANY.slug]
    old_server = sweeping._ORPHANS.replace("pg_postmaster_start_time()", "timestamptz '2020-01-01'")
    monkeypatch.setattr(sweeping, "_ORPHANS", old_server)


@pytest.mark.django_db
def test_who_dies_between_the_two_statements_of_a_batch_has_admitted_nothing() -> None:
    desk = Desk(credit="1")
    request = desk.request()
    for statement in (1, 2):
        with pytest.raises(Killed), killed_at(statement):
            desk.admit(request)
        assert not Hold.objects.exists()
    with killed_at(3):
        desk.admit(request)
    assert Hold.objects.get().request_id == request.finished.id


@pytest.mark.django_db
@pytest.mark.parametrize("machine", [MoneyMachine, GoingBack])
def test_any_sequence_of_acts_leaves_what_a_simple_model_says(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 30,
            stateful_step_count=80 if EXAMPLES else 40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
