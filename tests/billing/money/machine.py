"""Money in and out: top-ups, webhooks, auto top-up, grants, adjustments, expiries, refunds and disputes."""

import contextlib
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import rule

from billing import (
    adjusting,
    auto_topping_up,
    crediting,
    expiring,
    ledger,
    looking_up,
    moving,
    refunding,
    topping_up,
    webhooks,
)
from billing.models import Refund, SavedPaymentMethod, TopUp, WebhookEvent
from billing.providers.provider import (
    CURRENCY,
    DisputeChanged,
    News,
    PaymentArrived,
    RefundChanged,
    WebhookMessage,
)
from tests.billing.money.acting import ANY, KILL
from tests.billing.money.company import Company, Killed, Mood, killed_at
from tests.billing.money.model import CENT, USD, Back, Lot, Payment
from tests.billing.money.requests import Requests

MOODS = st.sampled_from([Mood.WELL, *Mood])
STATUSES = st.sampled_from(["pending", "succeeded", "failed"])
VERDICTS = st.sampled_from(["open", "open", "won", "lost"])


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


class MoneyMachine(Requests):
    """Whoever runs it has made COMPANY one of the providers that are offered."""

    def __init__(self) -> None:
        super().__init__()
        self.company = COMPANY
        self.company.forget()
        self.topups: list[TopUp] = []
        self.canceled: set[int] = set()
        self.method = SavedPaymentMethod.objects.create(
            account=self.account, provider=self.company.slug, customer="c", method="m", brand="Card", last4="1"
        )
        self.auto: Auto | None = None
        self.pending: TopUp | None = None
        # When automatic purchases began that were not in vain, and what each charged.
        self.bought: list[tuple[dt.datetime, int]] = []

    # Top-ups

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

    @rule(which=ANY, repeats=st.integers(1, 3), kill=KILL)
    def pay(self, which: int, repeats: int, kill: int | None) -> None:
        """Its webhook comes once or more often, also after it was canceled or had been paid."""
        if not self.topups:
            return
        topup = self.topups[which % len(self.topups)]
        self.tell(self.company.pay(topup), repeats=repeats, kill=kill)
        self._credited(topup)

    @rule(which=ANY)
    def pay_and_tell_nobody(self, which: int) -> None:
        if self.topups:
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

    @rule(which=ANY, kill=KILL)
    def cancel(self, which: int, kill: int | None) -> None:
        if not self.topups:
            return
        topup = self.topups[which % len(self.topups)]
        try:
            self.surely(lambda: topping_up.cancel(topup=topup, actor=None), kill)
        except topping_up.AlreadyPaid:
            assert topup.pk in {paid.id for paid in self.payments}
        else:
            self.canceled.add(topup.pk)

    @rule(which=ANY, is_too_little=st.booleans())
    def pay_again(self, which: int, is_too_little: bool) -> None:
        """A second payment beside the first, or one of another amount, waits for the operators."""
        if not self.payments:
            return
        paid = self.payments[which % len(self.payments)]
        cents = (paid.credit + paid.fee) // CENT
        second = PaymentArrived(paid.reference, self.name("second"), cents - is_too_little, CURRENCY)
        self.tell(second, outcome=WebhookEvent.Outcome.UNMATCHED)

    # Credit that nobody paid for, and that somebody takes

    @rule(nanousd=st.integers(1, 20 * USD), days=st.none() | st.integers(1, 40), kill=KILL)
    def grant(self, nanousd: int, days: int | None, kill: int | None) -> None:
        reference = self.name("grant")
        expires_at = None if days is None else self.at + dt.timedelta(days=days)

        def give() -> None:
            crediting.grant(
                account=self.account,
                amount_nanousd=nanousd,
                reason="for a test",
                actor=None,
                at=self.at,
                reference=reference,
                expires_at=expires_at,
            )

        self.surely(give, kill, already=ledger.AlreadyPosted)
        lot = self.account.promotional_credits.get(transaction__reference=reference)
        self.purse.lots.append(Lot(lot.pk, nanousd, expires_at))
        self.platform.granted += nanousd

    @rule(kill=KILL)
    def expire(self, kill: int | None) -> None:
        self.surely(lambda: expiring.expire_due(at=self.at), kill)
        self.platform.expired += self.purse.expire(self.at)

    @rule(nanousd=st.integers(1, 20 * USD), kill=KILL)
    def adjust(self, nanousd: int, kill: int | None) -> None:
        reference = self.name("adjust")

        def take() -> None:
            adjusting.take(
                account=self.account,
                amount_nanousd=nanousd,
                reason="for a test",
                actor=self.actor,
                at=self.at,
                reference=reference,
            )

        is_there = nanousd <= self.purse.available
        try:
            self.surely(take, kill, already=ledger.AlreadyPosted)
        except moving.NotAvailable:
            assert not is_there
        else:
            assert is_there
            self.purse.lose(nanousd)
            self.platform.taken += nanousd

    # Refunds

    @rule(which=ANY, percent=st.sampled_from([10, 33, 50, 100]), mood=MOODS, kill=KILL)
    def refund(self, which: int, percent: int, mood: Mood, kill: int | None) -> None:
        """As much of what can be given back: the credit goes out first, then the company is asked."""
        if not self.payments:
            return
        paid = self.payments[which % len(self.payments)]
        most = max(0, min(paid.kept_credit, self.purse.paid, self.purse.available)) // CENT
        topup, reference = TopUp.objects.get(pk=paid.id), self.name("refund")
        assert refunding.refundable(topup=topup).credit_nanousd == most * CENT
        credit = most * percent // 100 * CENT
        if not credit:
            return

        def start() -> None:
            refunding.start(
                topup=topup,
                credit_nanousd=credit,
                reason="r",
                actor=self.actor,
                reference=reference,
                at=self.at,
            )

        self.surely(start, kill, already=refunding.AlreadyAsked)
        back = Back(credit, paid.fee_of_refund(credit), 0, "pending", asked_at=self.at)
        paid.refunds[reference] = back
        self.purse.lose(credit)
        if kill is None:
            self._ask(Refund.objects.get(reference=reference), mood)

    @rule(mood=MOODS)
    def ask_for_refunds(self, mood: Mood) -> None:
        """What was left unanswered, by the company or by the dead, is asked for again."""
        self.at += dt.timedelta(minutes=3)
        unanswered = {
            reference
            for paid in self.payments
            for reference, back in paid.refunds.items()
            if back.status == "pending" and not back.is_named and back.asked_at is not None
            if back.asked_at > self.at - refunding.ASK_FOR
        }
        while refund := refunding.claim_unanswered(at=self.at):
            unanswered.remove(refund.reference)
            self._ask(refund, mood)
        assert not unanswered

    @rule(which=ANY, other=ANY, status=STATUSES, repeats=st.integers(1, 2), kill=KILL)
    def hear_of_refund(self, which: int, other: int, status: str, repeats: int, kill: int | None) -> None:
        """In any order, and of one that was refused as well."""
        refunded = [paid for paid in self.payments if paid.refunds]
        if not refunded:
            return
        paid = refunded[which % len(refunded)]
        reference = list(paid.refunds)[other % len(paid.refunds)]
        back = paid.refunds[reference]
        is_ours = back.asked_at is not None
        news = RefundChanged(
            f"re-{reference}",
            reference if is_ours else "",
            paid.payment,
            back.total // CENT,
            CURRENCY,
            status,
        )
        self.tell(news, repeats=repeats, kill=kill)
        paid.refund_changes(reference, status, self.purse)

    @rule(which=ANY, percent=st.sampled_from([1, 40, 100]), repeats=st.integers(1, 2), kill=KILL)
    def refund_elsewhere(self, which: int, percent: int, repeats: int, kill: int | None) -> None:
        """At the company's own dashboard, which does not ask what is spent."""
        if not self.payments:
            return
        paid, reference = self.payments[which % len(self.payments)], self.name("elsewhere")
        cents = max(1, (paid.credit + paid.fee) // CENT * percent // 100)
        news = RefundChanged(f"re-{reference}", "", paid.payment, cents, CURRENCY, "succeeded")
        self.tell(news, repeats=repeats, kill=kill)
        shares = paid.divide(cents * CENT, available=self.purse.available)
        paid.refunds[reference] = Back(*shares, "succeeded", is_named=True)
        self.purse.lose(shares[0])

    # Disputes

    @rule(
        which=ANY,
        dispute=st.sampled_from(["dp-1", "dp-1", "dp-2"]),
        status=VERDICTS,
        hours_ago=st.sampled_from([0, 0, 30]),
        repeats=st.integers(1, 2),
        kill=KILL,
    )
    def hear_of_dispute(
        self, which: int, dispute: str, status: str, hours_ago: int, repeats: int, kill: int | None
    ) -> None:
        """Opened, won and lost in any order; the first is of everything, the second of a part."""
        if not self.payments:
            return
        paid = self.payments[which % len(self.payments)]
        cents = (paid.credit + paid.fee) // CENT // (1 if dispute == "dp-1" else 3)
        occurred_at = self.at - dt.timedelta(hours=hours_ago)
        news = DisputeChanged(dispute, paid.payment, cents, CURRENCY, "fraudulent", status)
        self.tell(news, repeats=repeats, kill=kill, occurred_at=occurred_at)
        paid.dispute_changes(dispute, status, cents * CENT, occurred_at, self.purse)

    # Auto top-up

    @rule(threshold=st.integers(5, 40), amount=st.integers(5, 30), purchases=st.integers(1, 4))
    def agree(self, threshold: int, amount: int, purchases: int) -> None:
        cap = purchases * amount * USD * 5 // 4
        auto_topping_up.switch_on(
            account=self.account,
            threshold_nanousd=threshold * USD,
            amount_nanousd=amount * USD,
            monthly_cap_nanousd=cap,
            method=self.method,
            actor=self.actor,
            at=self.at,
        )
        self.auto = Auto(threshold * USD, amount * USD, cap)

    @rule()
    def disagree(self) -> None:
        auto_topping_up.switch_off(account=self.account, actor=self.actor)
        if self.auto:
            self.auto.is_on = False

    @rule(mood=MOODS)
    def top_up(self, mood: Mood) -> None:
        """One purchase at a time; one that was left open is asked for again under its own name."""
        auto = self.auto
        if auto is None:
            return
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

    @rule(kill=KILL)
    def hear_of_charge(self, kill: int | None) -> None:
        """The webhook is faster than whoever asked."""
        if self.pending is None or self.pending.provider_reference not in self.company.payments:
            return
        self.tell(self.company.payments[self.pending.provider_reference], kill=kill)
        self._charged()

    # What the acts above are made of

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
            self.purse.paid += topup.credit_nanousd

    def _ask(self, refund: Refund, mood: Mood) -> None:
        is_done = refund.reference in self.company.refunds
        self.company.mood = mood
        with contextlib.suppress(Killed):
            refunding.ask(refund=refund, at=self.at)
        self.company.mood = Mood.WELL
        paid = next(paid for paid in self.payments if refund.reference in paid.refunds)
        if mood is Mood.WELL or (mood is Mood.REFUSES and is_done):
            paid.refund_changes(refund.reference, "succeeded", self.purse)
        elif mood is Mood.REFUSES:
            back = paid.refunds[refund.reference]
            back.status = "failed"
            self.purse.paid += back.credit

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
