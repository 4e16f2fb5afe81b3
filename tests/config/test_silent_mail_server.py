"""A mail server that accepts and never answers, under a whole instance: what it may keep waiting, and what not."""

import time
from collections.abc import Iterator

import environ
import psycopg
import pytest

from tests.billing.fake_stripe import FakeStripe
from tests.instance import Instance, installed
from tests.silent_mail import SilentMailServer, silent_mail_server

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("instance")]

_BUY = """
from billing.models import TopUp
from tests import factories
from tests.billing.paying import check_out, start
account = factories.make_account()
for number in range({number}):
    print(check_out(start(account)).session)
"""
_HANG = """
import config.celery
from billing.tasks.receipts import mail_receipts
for number in range(8):
    mail_receipts.delay()
"""


@pytest.fixture
def mail() -> Iterator[SilentMailServer]:
    with silent_mail_server() as server:
        yield server


@pytest.fixture
def stripe() -> Iterator[FakeStripe]:
    fake = FakeStripe().start()
    yield fake
    fake.stop()


def script(instance: Instance, text: str) -> list[str]:
    """What a script in the instance's own environment prints."""
    done = instance.manage("shell", "-v", "0", "-c", text)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def paid(instance: Instance) -> int:
    """How many top-ups are paid."""
    at = environ.Env.db_url_config(instance.state.environ["DATABASE_URL"])
    with psycopg.connect(host=at["HOST"], port=at["PORT"], user=at["USER"], dbname=at["NAME"]) as connection:
        row = connection.execute("SELECT count(*) FROM billing_topup WHERE status = 'paid'").fetchone()
    assert row is not None
    return int(row[0])


def wait_until_paid(instance: Instance, number: int, *, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while paid(instance) < number:
        assert time.monotonic() < deadline, f"{paid(instance)} of {number} are paid after {patience_s} s"
        time.sleep(0.1)


def test_payments_are_credited_within_seconds_while_every_mail_hangs(
    mail: SilentMailServer, stripe: FakeStripe
) -> None:
    with installed() as instance:
        instance.start(
            extra_env={
                # For ever, as far as this test is concerned: it is not the timeout that lets payments through.
                "EMAIL_URL": f"smtp://127.0.0.1:{mail.port}?timeout=299",
                "TOPUP_PROVIDERS": "stripe,sandbox",
                "STRIPE_SECRET_KEY": stripe.key,
                "STRIPE_WEBHOOK_SECRETS": stripe.secret,
                "STRIPE_API_URL": stripe.url,
            }
        )
        stripe.webhook_url = f"{instance.url}/billing/webhooks/stripe/"
        sessions = script(instance, _BUY.format(number=8))
        for session in sessions[:5]:
            stripe.pay(session)
        assert set(stripe.deliver_all()) == {200}
        # Their receipts are owed now, and every thread that may send one does.
        wait_until_paid(instance, 5, patience_s=30)
        script(instance, _HANG)
        mail.wait_for_callers(2, patience_s=30)
        for number, session in enumerate(sessions[5:]):
            stripe.pay(session)
            assert set(stripe.deliver_all()) == {200}
            wait_until_paid(instance, 6 + number, patience_s=5)
