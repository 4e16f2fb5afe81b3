import base64
import datetime as dt
from ipaddress import ip_network

import pytest
from django.conf import settings
from django.test import override_settings
from pytest_django.fixtures import DjangoAssertNumQueries

from accounts import plans
from accounts.models import Plan
from keys import authenticating, policies, revoking, secrets
from keys.authenticating import Credential
from tests.factories import make_account, make_key, make_model, now

pytestmark = pytest.mark.django_db


def found(secret: str) -> Credential:
    credential = authenticating.find(secret=secret)
    assert credential is not None
    return credential


def test_a_secret_leads_to_its_key_account_and_plan_in_one_query(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    make_model("allowed")
    account = make_account()
    issued = make_key(
        account,
        name="checkout",
        environment="production",
        expires_at=dt.datetime(2099, 1, 1, tzinfo=dt.UTC),
        allowed_models=["allowed"],
        allowed_endpoints=["messages"],
        allowed_networks=["10.0.0.0/8", "2001:db8::/32"],
    )
    with django_assert_num_queries(1):
        credential = found(issued.secret)
    assert credential == Credential(
        key_id=issued.key.pk,
        account_id=account.pk,
        secret_id=issued.key.secrets.get().pk,
        key_name="checkout",
        environment="production",
        key_status="active",
        account_status="active",
        secret_retires_at=None,
        expires_at=dt.datetime(2099, 1, 1, tzinfo=dt.UTC),
        key_version=1,
        account_version=1,
        plan_slug="basic",
        plan_name="Basic",
        requests_per_minute=10,
        tokens_per_minute=None,
        limited_by_plan=frozenset({"requests"}),
        requests_per_day=7_200,
        tokens_per_day=200_000,
        max_input_characters=200_000,
        premium_models=False,
        spends_credits=False,
        allowed_models=frozenset({"allowed"}),
        allowed_endpoints=frozenset({"messages"}),
        allowed_networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
    )


def test_a_malformed_secret_asks_nobody(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    secret = make_key().secret
    wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    with django_assert_num_queries(0):
        assert authenticating.find(secret=wrong) is None


def test_an_unknown_secret_is_nobodys(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        assert authenticating.find(secret=secrets.generate(live=True)) is None


@pytest.mark.parametrize(
    ("own", "of_plan", "tighter"),
    [(5, 10, 5), (50, 10, 10), (None, 10, 10), (5, None, 5), (None, None, None)],
)
def test_the_tighter_limit_counts(own: int | None, of_plan: int | None, tighter: int | None) -> None:
    account = make_account()
    Plan.objects.filter(pk=account.plan_id).update(requests_per_minute=of_plan, tokens_per_minute=of_plan)
    credential = found(make_key(account, requests_per_minute=own, tokens_per_minute=own).secret)
    assert (credential.requests_per_minute, credential.tokens_per_minute) == (tighter, tighter)


def test_a_new_pepper_signs_new_secrets_and_the_old_one_still_verifies() -> None:
    old = make_key()
    new_pepper = "9:" + base64.b64encode(b"n" * 32).decode()
    with override_settings(KEY_PEPPERS=[new_pepper, *settings.KEY_PEPPERS]):
        new = make_key()
        assert new.key.secrets.get().pepper_version == 9
        assert found(old.secret).key_id == old.key.pk
        assert found(new.secret).key_id == new.key.pk
    assert authenticating.find(secret=new.secret) is None


def test_every_change_shows_in_the_next_answer() -> None:
    account = make_account()
    issued = make_key(account)
    policies.change_policy(key=issued.key, actor=None, requests_per_minute=3)
    assert found(issued.secret).key_version == 2
    plans.suspend(account=account, actor=None, reason="for a test")
    assert (found(issued.secret).account_status, found(issued.secret).account_version) == ("suspended", 2)
    revoking.revoke(key=issued.key, actor=None, at=now())
    assert found(issued.secret).key_status == "revoked"
