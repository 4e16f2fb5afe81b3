"""People whose pages the browser looks at: one with everything in it, one with nothing yet, and an operator.

`furnish` is called by tests, and `make` by the process of the instance that it starts: the instance has a database of
its own.
"""

import datetime as dt
import json
import uuid
from dataclasses import asdict, dataclass
from decimal import Decimal

from allauth.account.models import EmailAddress

from accounts.models import Account, Plan, User
from billing import crediting, disputing, refunding, topping_up, unmatched, webhooks
from billing.models import (
    AutoTopUp,
    GatewayProcess,
    SavedPaymentMethod,
    TopUp,
    UnmatchedPayment,
    WebhookEvent,
)
from billing.providers.provider import DisputeChanged, PaymentArrived, WebhookMessage
from catalog.models import Model
from keys import issuing, revoking
from keys.models import ApiKey
from tests.factories import make_account, make_budget, make_user, now
from tests.instance import Instance
from tests.usage.rows import make_record
from usage.models import Anomaly, UsageRecord

PASSWORD = "a password of nobody 7"
OWNER = "a-rather-long-address-of-a-person-with-many-keys@research.example.com"
NEWCOMER = "newcomer@example.com"
OPERATOR = "operator@example.com"
BASIC, PREMIUM = "deepseek-v4-flash", "claude-opus-4.8"
# What people type without thinking of the width of a phone.
_LONG_NAME = "nightly-evaluation-of-the-retrieval-pipeline-without-a-single-space-in-its-name"


@dataclass(frozen=True, slots=True)
class Furniture:
    """What there is to look at: ids for addresses."""

    key: int
    long_key: int
    disabled_key: int
    revoked_key: int
    expired_key: int
    budget: int
    paid: int
    pending: int
    canceled: int
    pending_reference: str
    method: int
    unmatched: int
    event: int
    completed: str
    refused: str
    account: int


def furnish(instance: Instance) -> Furniture:
    """Make the people in a running instance."""
    made = instance.manage("shell", "-v", "0", "-c", "from tests.e2e import furnishing; furnishing.make()")
    assert made.returncode == 0, made.stderr
    return Furniture(**json.loads(made.stdout))


def make() -> None:
    """In a process of the instance: make them, and print what was made as JSON."""
    owner = _person(OWNER)
    account = make_account(plan=Plan.PAY_AS_YOU_GO, credit="100", user=owner)
    make_account(user=_person(NEWCOMER))
    _person(OPERATOR, is_staff=True, is_superuser=True)
    key, long_key, disabled, revoked, expired = _make_keys(account, owner)
    paid, pending, canceled = _make_topups(account, owner)
    completed, refused = _make_usage(account, [key, long_key])
    _make_upstream_health()
    _make_running(account, owner)
    made = Furniture(
        key=key.pk,
        long_key=long_key.pk,
        disabled_key=disabled.pk,
        revoked_key=revoked.pk,
        expired_key=expired.pk,
        budget=_make_budgets(account, key, long_key, owner),
        paid=paid.pk,
        pending=pending.pk,
        canceled=canceled.pk,
        pending_reference=pending.provider_reference,
        method=_make_methods(account, owner).pk,
        unmatched=_make_unmatched().pk,
        event=_make_waiting_event().pk,
        completed=str(completed.pk),
        refused=str(refused.pk),
        account=account.pk,
    )
    print(json.dumps(asdict(made)))  # noqa: T201 - `furnish` reads it


def _person(email: str, **fields: bool) -> User:
    user = make_user(email, **fields)
    user.set_password(PASSWORD)
    user.save()
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


def _make_upstream_health() -> None:
    """A process that has described upstreams in every state, and is heard of for as long as anybody looks."""
    since = now().isoformat()
    counts = {"requests": 1234, "failures": 617, "since": since}
    why = "the connection failed: ClientConnectorError: Cannot connect to host a-long-name.example.com:443"
    GatewayProcess.objects.create(
        id=uuid.uuid4(),
        heartbeat_at=now() + dt.timedelta(hours=1),
        upstreams={
            f"anthropic/{PREMIUM}": {"state": "open", "last_error": why, **counts},
            f"deepseek/{BASIC}": {"state": "half-open", "last_error": "it answered 502", **counts},
            "openai/a-model-that-is-gone": {"state": "closed", "last_error": "", **counts},
        },
    )


def _make_keys(account: Account, owner: User) -> list[ApiKey]:
    """One as they mostly are, one with everything set, and one each that is disabled, revoked and expired."""
    at = now()
    plain = issuing.issue(
        account=account,
        actor=owner,
        name="Production API",
        at=at,
        environment=ApiKey.Environment.PRODUCTION,
        owner=owner,
        purpose="Answers our customers in the help center",
    ).key
    full = issuing.issue(
        account=account,
        actor=owner,
        name=_LONG_NAME,
        at=at,
        environment=ApiKey.Environment.STAGING,
        owner=owner,
        purpose="Compares every candidate with last week's winner, and writes a report about it",
        allowed_models=[BASIC, PREMIUM],
        allowed_endpoints=["chat/completions"],
        allowed_networks=["2001:db8:85a3::8a2e:370:7334/128"],
        requests_per_minute=120,
    ).key
    disabled, revoked, expired = (
        issuing.issue(account=account, actor=owner, name=name, at=at).key
        for name in ("On leave", "Leaked in a notebook", "Summer school")
    )
    revoking.disable(key=disabled, actor=owner, at=at)
    revoking.revoke(key=revoked, actor=owner, at=at)
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=at - dt.timedelta(days=2))
    return [plain, full, disabled, revoked, expired]


def _make_budgets(account: Account, key: ApiKey, long_key: ApiKey, owner: User) -> int:
    """Of every scope; the returned one has spent nearly all."""
    usd = 10**9
    make_budget(account, limit_nanousd=500 * usd, actor=owner, alert_percents=[50, 80, 100])
    make_budget(account, environment="staging", limit_nanousd=0, period="day", is_hard_stop=False)
    make_budget(long_key, limit_nanousd=12_345_678 * usd, period="week", actor=owner)
    # The key's usage of the month is a little over two dollars.
    return make_budget(key, limit_nanousd=5 * usd // 2, period="month", actor=owner).pk


def _make_topups(account: Account, owner: User) -> list[TopUp]:
    """One that was paid and partly taken back, one that waits and one that was canceled."""
    paid, pending, canceled = (
        topping_up.start(
            account=account, actor=owner, credit_nanousd=usd * 10**9, provider="sandbox", at=now()
        )
        for usd in (20, 50, 100)
    )
    topping_up.finish(
        provider="sandbox",
        reference=paid.provider_reference,
        paid_total_nanousd=paid.total_nanousd,
        at=now(),
    )
    topping_up.cancel(topup=canceled, actor=owner)
    _take_back(paid, owner)
    return [paid, pending, canceled]


def _take_back(topup: TopUp, owner: User) -> None:
    """Some of a payment: a refund, and a dispute that is open."""
    topup.refresh_from_db()
    refund = refunding.start(
        topup=topup,
        credit_nanousd=2 * 10**9,
        reason="The nightly job ran twice",
        actor=owner,
        reference="furniture",
        at=now(),
    )
    refunding.ask(refund=refund, at=now())
    news = DisputeChanged(
        dispute="dp_furniture",
        payment=topup.provider_payment,
        amount_cents=250,
        currency="usd",
        reason="product not received",
        status="open",
        respond_by="2027-01-01T00:00:00+00:00",
    )
    disputing.hear(provider="sandbox", news=news, at=now())


def _make_methods(account: Account, owner: User) -> SavedPaymentMethod:
    """One that auto top-up charges, and one that has expired. Returns the first."""
    fields = {"account": account, "provider": "stripe", "customer": "cus_1", "created_by": owner}
    SavedPaymentMethod.objects.create(
        **fields, method="pm_1", brand="American express", last4="0005", expires=dt.date(2026, 1, 31)
    )
    return SavedPaymentMethod.objects.create(
        **fields, method="pm_2", brand="Visa", last4="4242", expires=dt.date(2099, 12, 31), is_default=True
    )


def _make_running(account: Account, owner: User) -> None:
    """Credit that expires, and an auto top-up that has stopped, with a card to go on with."""
    crediting.grant(
        account=account,
        amount_nanousd=5 * 10**9,
        reason="A welcome to the summer school on retrieval and evaluation",
        actor=None,
        at=now(),
        reference="grant:welcome",
        expires_at=now() + dt.timedelta(days=20),
    )
    card = SavedPaymentMethod.objects.create(
        account=account,
        provider="sandbox",
        customer="sandbox",
        method="sandbox-card",
        brand="Sandbox",
        last4="4242",
        created_by=owner,
    )
    AutoTopUp.objects.create(
        account=account,
        threshold_nanousd=10 * 10**9,
        amount_nanousd=20 * 10**9,
        agreed_total_nanousd=25 * 10**9,
        monthly_cap_nanousd=100 * 10**9,
        agreed_by=owner,
        agreed_at=now(),
        off_reason="The last two payments failed. Your card was declined.",
        off_at=now(),
    )
    TopUp.objects.create(
        account=account,
        created_by=owner,
        origin=TopUp.Origin.AUTOMATIC,
        provider="sandbox",
        provider_reference="furniture",
        method=card,
        credit_nanousd=20 * 10**9,
        fee_nanousd=5 * 10**9,
        total_nanousd=25 * 10**9,
        fee_rate=Decimal("0.25"),
        status=TopUp.Status.FAILED,
        failure="Your card was declined.",
    )


def _make_unmatched() -> UnmatchedPayment:
    """A payment that nobody waited for."""
    payment = PaymentArrived(
        reference="", payment="pi_3Qa7Zx2eZvKYlo2C0aZQ8bVt", amount_cents=2500, currency="eur"
    )
    why = "stripe reports a payment that no top-up waits for"
    return unmatched.note(provider="stripe", payment=payment, why=why, event=None, at=now())


def _make_waiting_event() -> WebhookEvent:
    """A dispute of a payment that nobody here knows."""
    payment, at = "pi_3Qa8Zx2eZvKYlo2C1bYR9cWu", now()
    news = DisputeChanged("du_1Qa8Zx2eZvKYlo2C", payment, 2500, "usd", "fraudulent", "open")
    event = webhooks.record(
        provider="stripe", message=WebhookMessage("evt_1Qa8", "charge.dispute.created", at, news), at=at
    )
    webhooks.process(event=event, at=at)
    return event


def _make_usage(account: Account, keys: list[ApiKey]) -> list[UsageRecord]:
    """A month of requests, charged as settlements charge them, one refusal, and a spike that was noticed.

    Returns one request that was completed and one that was refused.
    """
    slugs = [BASIC, PREMIUM, "gpt-5.5", "glm-5", "kimi-k2.6"]
    models = list(Model.objects.filter(slug__in=slugs).order_by("slug"))
    records = [
        make_record(
            account=account,
            key=keys[day % 3 % 2],
            model=models[(day * 7 + turn) % len(models)],
            at=now() - dt.timedelta(days=day, minutes=5 * turn + 1),
            input_tokens=1_200 + 311 * day,
            output_tokens=240 + 57 * turn,
            cost_nanousd=21_437_500 + 7_654_321 * (day % 9) + 912_345 * turn,
            user_agent="OpenAI/Python 3.52.0",
        )
        for day in range(30)
        for turn in range(3)
    ]
    refused = make_record(
        account=account,
        key=keys[0],
        model=models[0],
        at=now(),
        outcome=UsageRecord.Outcome.REFUSED,
        status=429,
        error_code="rate_limit_exceeded",
    )
    # As wide as a row of the log gets: a long key, exact dollars, every figure with its thousands.
    make_record(
        account=account,
        key=keys[1],
        model=max(Model.objects.all(), key=lambda model: len(model.slug)),
        at=now() - dt.timedelta(seconds=30),
        input_tokens=1_048_576,
        output_tokens=131_072,
        latency_ms=600_000,
        cost_nanousd=12_437_500_068,
        outcome=UsageRecord.Outcome.FAILED,
        error_code="temporarily_unavailable",
    )
    Anomaly.objects.create(
        account=account,
        key=keys[1],
        model=models[0],
        hour=now().replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=3),
        expected_nanousd=410_000_000,
        threshold_nanousd=2_000_000_000,
        observed_nanousd=9_875_432_100,
        mailed_at=now(),
    )
    return [records[0], refused]
