"""Credit that is bought: top-ups and their webhooks, and auto top-up."""

import contextlib
import datetime as dt
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from billing import auto_topping_up, looking_up, topping_up, webhooks
from billing.models import SavedPaymentMethod, TopUp, WebhookEvent
from billing.providers.provider import CURRENCY, News, PaymentArrived, WebhookMessage
from tests.billing.money.acting import ANY, KILL
from tests.billing.money.company import Company, Killed, Mood, killed_at
from tests.billing.money.model import CENT, USD, Payment
from tests.billing.money.requests import Requests

MOODS = st.sampled_from([Mood.WELL, *Mood])
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
        # When automatic purchases began that were not in vain, and what each charged.
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
        """Whoever has paid and was not heard of is found, unless the top-up was given up here."""
        self.at += dt.timedelta(days=1)
        self.surely(lambda: looking_up.look_up_due(at=self.at), kill)
        if kill is not None:
            # What was claimed by a look that died is looked at again by a later one.
            self.at += dt.timedelta(hours=7)
            looking_up.look_up_due(at=self.at)
        for topup in self.topups:
            if topup.provider_reference in self.company.payments and topup.pk not in self.canceled:
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
    @rule(mood=MOODS)
    def top_up(self, mood: Mood) -> None:
        """One purchase at a time; one that was left open is asked for again under its own name."""
        auto = self.auto
        assert auto is not None
        self.at += auto_topping_up.ASKING_LASTS
        is_new = self.pending is None and self._wants(auto)
        was_charged = self.pending is not None and self.pending.provider_reference in self.company.payments
        self.company.mood = mood
        with contextlib.suppress(Killed):
            auto_topping_up.run(account_id=self.account.pk, at=self.at)
        self.company.mood = Mood.WELL
        if is_new:
            self.pending = TopUp.objects.filter(account=self.account, origin="automatic").latest("pk")
            self.bought.append((self.at, auto.total))
        if self.pending is not None:
            self._asked(auto, self.pending, mood, was_charged=was_charged)

    @precondition(lambda self: self.auto is not None)
    @rule(kill=st.integers(1, 60))
    def top_up_and_die(self, kill: int) -> None:
        """At any statement, before or after the charge: the next run goes on from what was committed."""
        auto = self.auto
        assert auto is not None
        self.at += auto_topping_up.ASKING_LASTS
        is_new = self.pending is None and self._wants(auto)
        with contextlib.suppress(Killed), killed_at(kill):
            auto_topping_up.run(account_id=self.account.pk, at=self.at)
        left = TopUp.objects.filter(account=self.account, origin="automatic", created_at=self.at).first()
        if left is not None:
            assert is_new
            self.pending = left
            self.bought.append((self.at, auto.total))
        if self.pending is not None:
            self._left_by_the_dead(auto, self.pending)
        self.top_up(mood=Mood.WELL)

    @precondition(lambda self: self.pending and self.pending.provider_reference in self.company.payments)
    @rule(kill=KILL)
    def hear_of_charge(self, kill: int | None) -> None:
        """The webhook is faster than whoever asked."""
        assert self.pending is not None
        self.tell(self.company.payments[self.pending.provider_reference], kill=kill)
        self._charged()

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

    def _wants(self, auto: Auto) -> bool:
        if not auto.is_on or self.purse.available >= auto.threshold:
            return False
        if auto.not_before is not None and auto.not_before > self.at:
            return False
        month = self.at.replace(day=1, hour=0, minute=0, second=0)
        if sum(total for at, total in self.bought if at >= month) + auto.total <= auto.cap:
            return True
        auto.not_before = (month + dt.timedelta(days=32)).replace(day=1)
        return False

    def _asked(self, auto: Auto, topup: TopUp, mood: Mood, *, was_charged: bool) -> None:
        age = self.at - topup.created_at
        if auto.is_on and age < auto_topping_up.ASK_AGAIN_FOR:
            arrives = mood is Mood.WELL or (mood is Mood.REFUSES and was_charged)
            fails = mood is Mood.REFUSES and not was_charged
        else:
            # Only looked up.
            arrives = was_charged
            fails = not arrives and (not auto.is_on or age > auto_topping_up.GIVE_UP_AFTER)
        if arrives:
            self._charged()
        elif fails:
            self._failed(auto)

    def _left_by_the_dead(self, auto: Auto, topup: TopUp) -> None:
        """What became of a purchase, as the one who died has committed it."""
        topup.refresh_from_db()
        if topup.status == TopUp.Status.PAID:
            assert topup.provider_reference in self.company.payments
            self._charged()
        elif topup.status == TopUp.Status.FAILED:
            assert topup.provider_reference not in self.company.payments
            self._failed(auto)

    def _failed(self, auto: Auto) -> None:
        self.pending = None
        self.bought.pop()
        auto.failures += 1
        auto.not_before = self.at + auto_topping_up.RETRY_AFTER
        auto.is_on = auto.is_on and auto.failures < auto_topping_up.FAILURES_TO_STOP

    def _charged(self) -> None:
        assert self.auto is not None
        assert self.pending is not None
        self._credited(self.pending)
        self.pending = None
        self.auto.failures, self.auto.not_before = 0, None
