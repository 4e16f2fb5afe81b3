"""Credit that is bought: top-ups and their webhooks, and auto top-up."""

import contextlib
import datetime as dt
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from billing import auto_topping_up, looking_up, topping_up, webhooks
from billing.models import AutoTopUp, SavedPaymentMethod, TopUp, WebhookEvent
from billing.providers.provider import (
    CURRENCY,
    News,
    Outcome,
    PaymentArrived,
    PaymentFailed,
    PaymentUndecided,
    WebhookMessage,
)
from tests.billing.money.acting import ANY, KILL
from tests.billing.money.company import Company, Killed, Mood, killed_at
from tests.billing.money.model import CENT, USD, Payment
from tests.billing.money.requests import Requests

MOODS = st.sampled_from([Mood.WELL, *(mood for mood in Mood if mood is not Mood.UNDECIDED)])
CHARGES = st.sampled_from([Mood.WELL, Mood.UNDECIDED, *Mood])
COMPANY = Company()


@dataclass
class Auto:
    """Auto top-up as it was agreed, and how it goes. In nano-USD."""

    threshold: int
    amount: int
    cap: int
    is_on: bool = True
    failures: int = 0
    not_before: dt.datetime | None = None
    # What ended by a webhook: the next run takes notice of it.
    uncounted: TopUp | None = None

    @property
    def total(self) -> int:
        """With the fee of 25 %."""
        return self.amount * 5 // 4


class Buying(Requests):
    """Whoever runs it has made COMPANY one of the providers that are offered."""

    def __init__(self) -> None:
        super().__init__()
        self.company = COMPANY
        self.company.forget()
        self.topups: list[TopUp] = []
        self.canceled: set[int] = set()
        self.method = SavedPaymentMethod.objects.create(
            account=self.account,
            provider=self.company.slug,
            customer="c",
            method="m",
            brand="Card",
            last4="1",
        )
        self.auto: Auto | None = None
        self.pending: TopUp | None = None
        self.failed: list[TopUp] = []
        # When what automatic purchases charged has come, and how much.
        self.bought: list[tuple[dt.datetime, int]] = []

    @rule(cents=st.integers(500, 5_000), kill=KILL)
    def start(self, cents: int, kill: int | None) -> None:
        """A form that is sent again is the same top-up."""
        submission = self.name("form")

        def send() -> None:
            topup = topping_up.start(
                account=self.account,
                actor=self.actor,
                credit_nanousd=cents * CENT,
                provider=self.company.slug,
                submission=submission,
                at=self.at,
            )
            checkout = self.company.start_checkout(topup=topup, return_url="", cancel_url="")
            topping_up.keep_checkout(topup=topup, checkout=checkout)

        self.surely(send, kill)
        self.topups.append(TopUp.objects.get(submission=submission))

    @precondition(lambda self: bool(self.topups))
    @rule(which=ANY, repeats=st.integers(1, 3), kill=KILL)
    def pay(self, which: int, repeats: int, kill: int | None) -> None:
        """Its webhook comes once or more often, also after it was canceled or had been paid."""
        topup = self.topups[which % len(self.topups)]
        self.tell(self.company.pay(topup), repeats=repeats, kill=kill)
        self._credited(topup)

    @precondition(lambda self: bool(self.topups))
    @rule(which=ANY)
    def pay_and_tell_nobody(self, which: int) -> None:
        self.company.pay(self.topups[which % len(self.topups)])

    @rule(kill=KILL)
    def look_up(self, kill: int | None) -> None:
        """Whoever has paid and was not heard of is found, for 30 days also where it was given up here."""
        self.at += dt.timedelta(days=1)
        first = self.at
        self.surely(lambda: looking_up.look_up_due(at=self.at), kill)
        if kill is not None:
            # What was claimed by a look that died is looked at again by a later one.
            self.at += dt.timedelta(hours=7)
            looking_up.look_up_due(at=self.at)
        for topup in [*self.topups, *self.failed]:
            is_over = topup.pk in self.canceled or topup in self.failed
            until = topup.created_at + dt.timedelta(days=30)
            if topup.provider_reference not in self.company.payments or (is_over and until <= first):
                continue
            if is_over and until <= self.at:
                # One look was in time, the other was not, and which of them died is not known.
                topup.refresh_from_db()
                if topup.paid_at is None:
                    continue
            self._credited(topup)

    @precondition(lambda self: bool(self.topups))
    @rule(which=ANY, kill=KILL)
    def cancel(self, which: int, kill: int | None) -> None:
        topup = self.topups[which % len(self.topups)]
        try:
            self.surely(lambda: topping_up.cancel(topup=topup, actor=None), kill)
        except topping_up.AlreadyPaid:
            assert topup.pk in {paid.id for paid in self.payments}
        else:
            self.canceled.add(topup.pk)

    @precondition(lambda self: bool(self.payments))
    @rule(which=ANY, is_too_little=st.booleans())
    def pay_again(self, which: int, is_too_little: bool) -> None:
        """A second payment beside the first, or one of another amount, waits for the operators."""
        paid = self.payments[which % len(self.payments)]
        cents = (paid.credit + paid.fee) // CENT
        second = PaymentArrived(paid.reference, self.name("second"), cents - is_too_little, CURRENCY)
        self.tell(second, outcome=WebhookEvent.Outcome.UNMATCHED)

    @rule(threshold=st.integers(5, 40), amount=st.integers(5, 30), purchases=st.integers(1, 4), kill=KILL)
    def agree(self, threshold: int, amount: int, purchases: int, kill: int | None) -> None:
        cap = purchases * amount * USD * 5 // 4

        def switch_on() -> None:
            auto_topping_up.switch_on(
                account=self.account,
                threshold_nanousd=threshold * USD,
                amount_nanousd=amount * USD,
                monthly_cap_nanousd=cap,
                method=self.method,
                actor=self.actor,
                at=self.at,
            )

        self.surely(switch_on, kill)
        self.auto = Auto(threshold * USD, amount * USD, cap)

    @precondition(lambda self: self.auto is not None)
    @rule(kill=KILL)
    def disagree(self, kill: int | None) -> None:
        self.surely(lambda: auto_topping_up.switch_off(account=self.account, actor=self.actor), kill)
        if self.auto:
            self.auto.is_on = False

    @precondition(lambda self: self.auto is not None)
    @rule(mood=CHARGES)
    def top_up(self, mood: Mood) -> None:
        """One purchase at a time; one that was left open is asked for again under its own name."""
        auto = self.auto
        assert auto is not None
        self.at += auto_topping_up.ASKING_LASTS
        self._count(auto)
        is_new = self.pending is None and self._wants(auto)
        before = self.company.outcomes.get(self.pending.provider_reference) if self.pending else None
        self.company.mood = mood
        with contextlib.suppress(Killed):
            auto_topping_up.run(account_id=self.account.pk, at=self.at)
        self.company.mood = Mood.WELL
        if is_new:
            self.pending = TopUp.objects.filter(account=self.account, origin="automatic").latest("pk")
        if self.pending is not None:
            self._asked(auto, self.pending, mood, before)
        month = self.at.replace(day=1, hour=0, minute=0, second=0)
        charged = sum(total for at, total in self.bought if at >= month)
        charged += self.pending.total_nanousd if self.pending else 0
        assert auto_topping_up.charged_in_month(account_id=self.account.pk, at=self.at) == charged

    @precondition(lambda self: self.auto is not None)
    @rule(kill=st.integers(1, 60))
    def top_up_and_die(self, kill: int) -> None:
        """At any statement, before or after the charge: the next run goes on from what was committed."""
        auto = self.auto
        assert auto is not None
        self.at += auto_topping_up.ASKING_LASTS
        with contextlib.suppress(Killed), killed_at(kill):
            auto_topping_up.run(account_id=self.account.pk, at=self.at)
        self._count_if_committed(auto)
        left = TopUp.objects.filter(account=self.account, origin="automatic", created_at=self.at).first()
        if left is not None:
            assert self.pending is None
            assert self._wants(auto)
            self.pending = left
        if self.pending is not None:
            self._left_by_the_dead(auto, self.pending)
        self.top_up(mood=Mood.WELL)

    @precondition(lambda self: self.pending and self.pending.provider_reference in self.company.payments)
    @rule(kill=KILL)
    def hear_of_charge(self, kill: int | None) -> None:
        """The webhook is faster than whoever asked."""
        assert self.pending is not None
        self.tell(self.company.payments[self.pending.provider_reference], kill=kill)
        self._charged(self.pending)

    @precondition(lambda self: self.pending and self._is_undecided(self.pending))
    @rule(is_paid=st.booleans(), tells=st.booleans(), kill=KILL)
    def decide(self, is_paid: bool, tells: bool, kill: int | None) -> None:
        """The bank has taken its days; its word may get lost."""
        topup = self.pending
        assert topup is not None
        decided = self.company.pay(topup) if is_paid else self.company.send_back(topup)
        if not tells:
            return
        self.tell(decided, kill=kill)
        if is_paid:
            self._charged(topup)
        elif self.auto is not None:
            self.failed.append(topup)
            self.pending, self.auto.uncounted = None, topup

    @precondition(lambda self: bool(self.failed))
    @rule(which=ANY, tells=st.booleans(), kill=KILL)
    def pay_after_all(self, which: int, tells: bool, kill: int | None) -> None:
        """What the company had called failed has come all the same."""
        topup = self.failed[which % len(self.failed)]
        arrived = self.company.pay(topup)
        if tells:
            self.tell(arrived, kill=kill)
            self._credited(topup)

    def tell(
        self,
        news: News,
        *,
        repeats: int = 1,
        kill: int | None = None,
        outcome: str = WebhookEvent.Outcome.DONE,
        occurred_at: dt.datetime | None = None,
    ) -> None:
        """The company's webhook, which it repeats until it is answered; what died is processed by the next run."""
        message = WebhookMessage(self.name("event"), "a webhook", occurred_at or self.at, news)

        def take() -> None:
            event = webhooks.record(provider=self.company.slug, message=message, at=self.at)
            webhooks.process(event=event, at=self.at)

        if kill is not None:
            with contextlib.suppress(Killed), killed_at(kill):
                take()
            self.at += dt.timedelta(minutes=1)
            webhooks.process_due(at=self.at)
        for _ in range(repeats):
            take()
        event = WebhookEvent.objects.get(event=message.event)
        assert event.outcome == outcome, event.problem

    def _credited(self, topup: TopUp) -> None:
        if topup.pk not in {paid.id for paid in self.payments}:
            self.payments.append(
                Payment(topup.pk, topup.provider_reference, topup.credit_nanousd, topup.fee_nanousd)
            )
            self.purse.collect()
            self.purse.paid += topup.credit_nanousd
            if topup.origin == TopUp.Origin.AUTOMATIC:
                # Who dies and does it again, does it a little later.
                topup.refresh_from_db()
                assert topup.paid_at is not None
                self.bought.append((topup.paid_at, topup.total_nanousd))

    def _wants(self, auto: Auto) -> bool:
        if not auto.is_on or self.purse.to_take or self.purse.available >= auto.threshold:
            return False
        if auto.not_before is not None and auto.not_before > self.at:
            return False
        month = self.at.replace(day=1, hour=0, minute=0, second=0)
        if sum(total for at, total in self.bought if at >= month) + auto.total <= auto.cap:
            return True
        auto.not_before = (month + dt.timedelta(days=32)).replace(day=1)
        return False

    def _asked(self, auto: Auto, topup: TopUp, mood: Mood, before: Outcome | None) -> None:
        """`before`: how it stood at the company, which did not know of it where that is None."""
        if auto.is_on and self.at - topup.created_at < auto_topping_up.ASK_AGAIN_FOR:
            if mood not in (Mood.WELL, Mood.REFUSES, Mood.UNDECIDED):
                # Nobody has heard an answer.
                return
            arrives = isinstance(before, PaymentArrived) or (before is None and mood is Mood.WELL)
            fails = isinstance(before, PaymentFailed) or (before is None and mood is Mood.REFUSES)
        else:
            # Only looked up.
            arrives = isinstance(before, PaymentArrived)
            fails = before is None or isinstance(before, PaymentFailed)
        if arrives:
            self._charged(topup)
        elif fails:
            self._failed(auto, topup)

    def _left_by_the_dead(self, auto: Auto, topup: TopUp) -> None:
        """What became of a purchase, as the one who died has committed it."""
        topup.refresh_from_db()
        if topup.status == TopUp.Status.PAID:
            assert topup.provider_reference in self.company.payments
            self._charged(topup)
        elif topup.status == TopUp.Status.FAILED:
            self.failed.append(topup)
            self.pending, auto.uncounted = None, topup
            self._count_if_committed(auto)

    def _count_if_committed(self, auto: Auto) -> None:
        counted = AutoTopUp.objects.values_list("counted_topup_id", flat=True).get(account=self.account)
        if auto.uncounted is not None and counted >= auto.uncounted.pk:
            self._count(auto)

    def _is_undecided(self, topup: TopUp) -> bool:
        return isinstance(self.company.outcomes.get(topup.provider_reference), PaymentUndecided)

    def _charged(self, topup: TopUp) -> None:
        assert self.auto is not None
        self._credited(topup)
        self.pending = None
        self.auto.failures, self.auto.not_before = 0, None

    def _failed(self, auto: Auto, topup: TopUp) -> None:
        self.failed.append(topup)
        self.pending = None
        auto.uncounted = topup
        self._count(auto)

    def _count(self, auto: Auto) -> None:
        """A failure that has been paid after all since is none."""
        topup, auto.uncounted = auto.uncounted, None
        if topup is None:
            return
        if topup.pk in {paid.id for paid in self.payments}:
            auto.failures, auto.not_before = 0, None
            return
        auto.failures += 1
        auto.not_before = self.at + auto_topping_up.RETRY_AFTER
        auto.is_on = auto.is_on and auto.failures < auto_topping_up.FAILURES_TO_STOP
