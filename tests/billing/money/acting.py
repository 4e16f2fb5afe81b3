"""What all acts share: the account, the model of its money, the clock, and being killed."""

import contextlib
import datetime as dt
from collections.abc import Callable
from typing import TypeVar

from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from accounts.models import Plan
from billing import promotions
from billing.models import Posting, Wallet
from tests import factories
from tests.billing.money.company import Killed, killed_at
from tests.billing.money.model import Payment, Platform, Purse
from tests.invariants import check_books

T = TypeVar("T")

BEGINNING = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
# Which of what there is.
ANY = st.integers(0, 9)
# The statement at which the process dies; mostly it lives.
KILL = st.none() | st.none() | st.integers(1, 30)
# The whole audit takes as long as several acts.
AUDIT_EVERY = 10


class _Never(Exception):
    """What nothing raises."""


class Acting(RuleBasedStateMachine):
    """One account, its model beside it. Each example is a transaction that is rolled back."""

    def __init__(self) -> None:
        super().__init__()
        self.world = transaction.atomic()
        self.world.__enter__()
        self.at = BEGINNING
        self.account = factories.make_account(plan=Plan.PAY_AS_YOU_GO)
        self.actor = self.account.members.get()
        self.purse, self.platform = Purse(), Platform()
        self.payments: list[Payment] = []
        self.steps = 0
        self.names = 0

    def surely(
        self, act: Callable[[], object], kill: int | None, *, already: type[Exception] = _Never
    ) -> None:
        """Do it; or die at that statement of it and do it again, as who asked for it, or the next run, would.

        `already`: what the second time raises where the first was done.
        """
        if kill is not None:
            with contextlib.suppress(Killed), killed_at(kill):
                act()
            with contextlib.suppress(already):
                act()
        else:
            act()

    def once(self, act: Callable[[], T], kill: int | None) -> T:
        """Do it; or die at that statement of it, and do it anew if that came before its end. What it answers."""
        if kill is not None:
            with contextlib.suppress(Killed), killed_at(kill):
                return act()
        return act()

    def name(self, of: str) -> str:
        self.names += 1
        return f"{of}-{self.names}"

    @rule(hours=st.sampled_from([1, 1, 5, 24, 24 * 5, 24 * 30]))
    def wait(self, hours: int) -> None:
        self.at += dt.timedelta(hours=hours)

    @invariant()
    def the_books_are_what_the_model_says(self) -> None:
        self.steps += 1
        wallet = Wallet.objects.filter(account=self.account).first() or Wallet()
        assert (wallet.balance_nanousd, wallet.held_nanousd) == (
            self.purse.balance,
            self.purse.held + self.purse.to_take,
        )
        assert wallet.to_take_nanousd == self.purse.to_take
        standing = promotions.standing(account_id=self.account.pk)
        assert standing.paid_nanousd == self.purse.paid
        left = {lot.id: lot.left_nanousd for lot in standing.unspent_lots}
        assert left == {lot.id: lot.left for lot in self.purse.lots if lot.left}
        self.compare_budgets()
        self._compare_platform()
        if self.steps % AUDIT_EVERY == 0:
            check_books()

    def compare_budgets(self) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        try:
            check_books()
        finally:
            transaction.set_rollback(True)
            self.world.__exit__(None, None, None)

    def _compare_platform(self) -> None:
        kinds = self.platform.sums(self.payments)
        sums = dict.fromkeys(kinds, 0)
        postings = Posting.objects.filter(ledger_account__kind__in=kinds)
        for kind, amount in postings.values_list("ledger_account__kind", "amount_nanousd"):
            sums[kind] += amount
        assert sums == kinds
