"""The whole machine: on top of what is used and bought, credit that is granted, taken, expires and goes back."""

import contextlib
import datetime as dt

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from billing import (
    adjusting,
    collecting,
    crediting,
    expiring,
    ledger,
    moving,
    pending_refunds,
    refunding,
    unmatched,
    webhooks,
)
from billing.models import Refund, TopUp, UnmatchedPayment, WebhookEvent
from billing.providers.provider import CURRENCY, DisputeChanged, News, PaymentArrived, RefundChanged
from tests.billing.money.acting import ANY, KILL
from tests.billing.money.buying import MOODS, Buying
from tests.billing.money.company import Killed, Mood
from tests.billing.money.model import CENT, USD, Back, Lot, Payment, bought_with

STATUSES = st.sampled_from(["pending", "succeeded", "failed"])
# Of a refund at the company: what is told of it, as it is heard.
ELSEWHERE = st.sampled_from(
    [
        ["succeeded"],
        ["pending", "succeeded"],
        ["pending", "failed"],
        ["failed"],
        ["failed", "pending"],
        ["failed", "succeeded"],
    ]
)
VERDICTS = st.sampled_from(["open", "open", "won", "lost"])


class MoneyMachine(Buying):
    """One account and everything that can happen to its money."""

    @initialize(
        cents=st.integers(500, 10_000), is_spent=st.booleans(), percent=st.sampled_from([10, 70, 100])
    )
    def begin(self, cents: int, is_spent: bool, percent: int) -> None:
        """Most of what can happen needs a payment (perhaps a spent one), a grant that will expire, and a request."""
        self.start(cents=cents, kill=None)
        self.pay(which=0, repeats=1, kill=None)
        if is_spent:
            self.admit(which=0, percent=100, is_orphan=False, kill=None)
            self.end(which=0, percent=100, repeats=False, kill=None)
        self.grant(nanousd=30 * USD, days=4, kill=None)
        self.admit(which=0, percent=percent, is_orphan=False, kill=None)

    @rule(nanousd=st.integers(1, 90 * USD), days=st.sampled_from([1, 4, 20, None]), kill=KILL)
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
        self.purse.collect()
        self.purse.lots.append(Lot(lot.pk, nanousd, expires_at))
        self.platform.granted += nanousd

    @precondition(lambda self: bool(self.purse.lots))
    @rule(waits=st.booleans(), kill=KILL)
    def expire(self, waits: bool, kill: int | None) -> None:
        """Perhaps at the very moment at which the next date has come."""
        dates = [lot.expires_at for lot in self.purse.lots if lot.left and lot.expires_at]
        if waits and dates:
            self.at = max(self.at, min(dates))
        self.surely(lambda: expiring.expire_due(at=self.at), kill)
        self.platform.expired += self.purse.expire(self.at)

    @rule(percent=st.sampled_from([100, 1, 33, 110]), kill=KILL)
    def adjust(self, percent: int, kill: int | None) -> None:
        """Down by so much of what is available; never by what requests hold."""
        self.collect(kill=None)
        nanousd = max(1, self.purse.available * percent // 100)
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
            granted = self.purse.give_back(nanousd)
            self.platform.taken_back += granted
            self.platform.taken += nanousd - granted

    @precondition(lambda self: bool(self.payments))
    @rule(which=ANY, percent=st.sampled_from([1, 10, 33, 100]), mood=MOODS, kill=KILL)
    def refund(self, which: int, percent: int, mood: Mood, kill: int | None) -> None:
        """As much of what can be given back: the credit goes out first, then the company is asked."""
        self.collect(kill=None)
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
        self.purse.backs.append(back)
        self.purse.lose(back, credit)
        if kill is None:
            self._ask(Refund.objects.get(reference=reference), mood)

    @precondition(lambda self: any(paid.refunds for paid in self.payments))
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

    @precondition(lambda self: bool(self._pending()))
    @rule()
    def look_up_refunds(self) -> None:
        """What the company has named, or nobody asks for any more: it says what it knows, if its webhook is lost."""
        self.at += pending_refunds.LOOK_EVERY_LATER
        due = {
            reference
            for reference, (_, back) in self._pending().items()
            if back.is_named or (back.asked_at is not None and back.asked_at <= self.at - refunding.ASK_FOR)
        }
        while refund := pending_refunds.claim(at=self.at):
            due.remove(refund.reference)
            pending_refunds.look_up(refund=refund, at=self.at)
            self._looked_up(refund.reference)
        assert not due

    @precondition(lambda self: bool(self._pending()))
    @rule(which=ANY)
    def ask_again(self, which: int) -> None:
        """By an operator: what the company knows nothing of is asked for, however old it is."""
        reference = list(self._pending())[which % len(self._pending())]
        refund = Refund.objects.select_related("topup").get(reference=reference)
        pending_refunds.ask_again(refund=refund, actor=self.actor, at=self.at)
        self._looked_up(reference)

    @precondition(lambda self: bool(self._pending()))
    @rule(which=ANY, waits=st.booleans())
    def give_up(self, which: int, waits: bool) -> None:
        """By an operator: only what is not asked for any more, and what the company knows nothing of."""
        if waits:
            self.at += refunding.ASK_FOR
        reference = list(self._pending())[which % len(self._pending())]
        paid, _ = self._pending()[reference]
        refund = Refund.objects.select_related("topup").get(reference=reference)
        assert refund.asked_at is not None
        is_being_asked = not waits and (
            refund.created_at > self.at - refunding.ASK_FOR
            or refund.asked_at > self.at - pending_refunds._ASKING_LASTS
        )
        try:
            pending_refunds.give_up(refund=refund, actor=self.actor, at=self.at)
        except pending_refunds.NotGivenUp:
            assert is_being_asked or reference in self.company.refunds
            if not is_being_asked:
                self._looked_up(reference)
        else:
            assert not is_being_asked
            assert reference not in self.company.refunds
            paid.has_failed(reference, self.purse)

    @rule(
        cents=st.integers(100, 5_000),
        percent=st.sampled_from([100, 100, 30]),
        told=st.sampled_from(["refund", *["open", "lost", "won"], ""]),
        days=st.sampled_from([0, 1, 5]),
    )
    def credit_unmatched(self, cents: int, percent: int, told: str, days: int) -> None:
        """By an operator, days after it came; what went back of it meanwhile was told before, and is not forgotten."""
        reference = self.name("unmatched")
        payment = f"pay-{reference}"
        self.tell(PaymentArrived("", payment, cents, CURRENCY), outcome=WebhookEvent.Outcome.UNMATCHED)
        back_cents, told_at = max(1, cents * percent // 100), self.at
        news: News = RefundChanged(f"re-{reference}", "", payment, back_cents, CURRENCY, "succeeded")
        if told != "refund":
            news = DisputeChanged("dp-early", payment, back_cents, CURRENCY, "fraudulent", told)
        if told:
            self.tell(news, outcome=WebhookEvent.Outcome.WAITING)
        self.at += dt.timedelta(days=days)
        webhooks.process_due(at=self.at)
        topup = unmatched.credit(
            unmatched=UnmatchedPayment.objects.get(payment=payment),
            account=self.account,
            actor=self.actor,
            text="for a test",
            at=self.at,
        )
        webhooks.process_told_early(provider=self.company.slug, payment=payment, at=self.at)
        paid = Payment(topup.pk, reference, *bought_with(cents))
        self.payments.append(paid)
        self.purse.collect()
        self.purse.paid += paid.credit
        if told == "refund":
            self._goes_back(paid, reference, back_cents, "succeeded")
        elif told:
            paid.dispute_changes("dp-early", told, back_cents * CENT, told_at, self.purse)

    @precondition(lambda self: any(paid.refunds for paid in self.payments))
    @rule(which=ANY, other=ANY, status=STATUSES, repeats=st.integers(1, 2), kill=KILL)
    def hear_of_refund(self, which: int, other: int, status: str, repeats: int, kill: int | None) -> None:
        """In any order, and of one that was refused as well."""
        refunded = [paid for paid in self.payments if paid.refunds]
        paid = refunded[which % len(refunded)]
        reference = list(paid.refunds)[other % len(paid.refunds)]
        back = paid.refunds[reference]
        ours = [each for each in paid.refunds.values() if each.asked_at and each.status != "failed"]
        if back.status == "failed" and back.total + sum(each.total for each in ours) > paid.credit + paid.fee:
            # It was refused, others were made since, and no company gives back more than was paid.
            return
        is_ours = back.asked_at is not None
        news = RefundChanged(
            f"re-{reference}",
            reference if is_ours else "",
            paid.payment,
            back.total // CENT,
            CURRENCY,
            status,
        )
        self.company.refunds[reference] = news
        self.tell(news, repeats=repeats, kill=kill)
        paid.refund_changes(reference, status, self.purse)

    @precondition(lambda self: bool(self.payments))
    @rule(
        which=ANY,
        percent=st.sampled_from([1, 10, 100]),
        told=ELSEWHERE,
        repeats=st.integers(1, 2),
        kill=KILL,
    )
    def refund_elsewhere(
        self, which: int, percent: int, told: list[str], repeats: int, kill: int | None
    ) -> None:
        """At the company's own dashboard, which does not ask what is spent. News of it comes in any order."""
        paid, reference = self.payments[which % len(self.payments)], self.name("elsewhere")
        cents = max(1, (paid.credit + paid.fee) // CENT * percent // 100)
        for status in told:
            news = RefundChanged(f"re-{reference}", "", paid.payment, cents, CURRENCY, status)
            self.tell(news, repeats=repeats, kill=kill)
            if reference in paid.refunds:
                paid.refund_changes(reference, status, self.purse)
            else:
                self._goes_back(paid, reference, cents, status)

    def _goes_back(self, paid: Payment, reference: str, cents: int, status: str) -> None:
        """A refund that nobody asked us for. Of one that failed before anything else was told, nothing is taken."""
        self.purse.collect()
        back = Back(0, 0, 0, status, is_named=True)
        if status == "failed":
            back.loss = cents * CENT
        else:
            paid.take(back, cents * CENT, self.purse)
        paid.refunds[reference] = back
        self.purse.backs.append(back)

    @precondition(lambda self: bool(self.payments))
    @rule(
        which=ANY,
        dispute=st.sampled_from(["dp-1", "dp-1", "dp-2"]),
        part=st.sampled_from([1, 1, 2, 5]),
        status=VERDICTS,
        hours_ago=st.sampled_from([0, 0, 30]),
        repeats=st.integers(1, 2),
        kill=KILL,
    )
    def hear_of_dispute(
        self,
        *,
        which: int,
        dispute: str,
        part: int,
        status: str,
        hours_ago: int,
        repeats: int,
        kill: int | None,
    ) -> None:
        """Opened, won and lost in any order, of one amount or another."""
        paid = self.payments[which % len(self.payments)]
        cents = max(1, (paid.credit + paid.fee) // CENT // (1 if dispute == "dp-1" else 3) // part)
        occurred_at = self.at - dt.timedelta(hours=hours_ago)
        if paid.is_refused(dispute, status, cents * CENT, occurred_at):
            return
        news = DisputeChanged(dispute, paid.payment, cents, CURRENCY, "fraudulent", status)
        self.tell(news, repeats=repeats, kill=kill, occurred_at=occurred_at)
        paid.dispute_changes(dispute, status, cents * CENT, occurred_at, self.purse)

    @precondition(
        lambda self: any(back.status == "open" for paid in self.payments for back in paid.disputes.values())
    )
    @rule(status=st.sampled_from(["won", "won", "lost"]), kill=KILL)
    def decide(self, status: str, kill: int | None) -> None:
        """The bank decides a dispute that is open; by chance alone, few of them would be opened and then won."""
        paid, name, back = next(
            (paid, name, back)
            for paid in self.payments
            for name, back in paid.disputes.items()
            if back.status == "open"
        )
        cents = back.total // CENT
        news = DisputeChanged(name, paid.payment, cents, CURRENCY, "fraudulent", status)
        self.tell(news, kill=kill, occurred_at=self.at)
        paid.dispute_changes(name, status, cents * CENT, self.at, self.purse)

    @rule(kill=KILL)
    def collect(self, kill: int | None) -> None:
        """Disputes and refunds that came while requests held credit take what these have left."""
        self.surely(lambda: collecting.collect_due(at=self.at), kill)
        self.purse.collect()

    def _pending(self) -> dict[str, tuple[Payment, Back]]:
        """The refunds that are on their way, by reference."""
        return {
            reference: (paid, back)
            for paid in self.payments
            for reference, back in paid.refunds.items()
            if back.status == "pending"
        }

    def _looked_up(self, reference: str) -> None:
        """The company has said what it knows of a refund; nothing may be."""
        if told := self.company.refunds.get(reference):
            self._pending()[reference][0].refund_changes(reference, told.status, self.purse)

    def _ask(self, refund: Refund, mood: Mood) -> None:
        is_done = refund.reference in self.company.refunds
        self.company.mood = mood
        with contextlib.suppress(Killed):
            refunding.ask(refund=refund, at=self.at)
        self.company.mood = Mood.WELL
        paid = next(paid for paid in self.payments if refund.reference in paid.refunds)
        if mood is Mood.WELL or (mood is Mood.REFUSES and is_done):
            status = self.company.refunds[refund.reference].status
            paid.refund_changes(refund.reference, status, self.purse)
        elif mood is Mood.REFUSES:
            paid.has_failed(refund.reference, self.purse)


# Where little else happens than that money goes back while requests run: among all acts, chance seldom lets a dispute
# take of a grant and be won.
_LEFT_OUT = (
    "look_up cancel pay_again pay_and_tell_nobody agree disagree top_up top_up_and_die hear_of_charge"
    " limit unlimit sweep roll_up post adjust refund ask_for_refunds"
)
GoingBack = type("GoingBack", (MoneyMachine,), dict.fromkeys(_LEFT_OUT.split()))
