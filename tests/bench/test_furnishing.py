"""Accounts for a benchmark."""

import json

import pytest

from accounts.models import Account
from bench.parts.furnishing import furnish
from billing.models import Wallet
from keys import authenticating

pytestmark = pytest.mark.django_db


def test_each_account_has_credit_and_a_key_that_opens_it(capsys: pytest.CaptureFixture[str]) -> None:
    furnish(3)

    found = [authenticating.find(secret=secret) for secret in json.loads(capsys.readouterr().out)]
    owners = {credential.account_id for credential in found if credential}
    assert owners == set(Account.objects.values_list("pk", flat=True))
    assert len(owners) == 3
    assert min(Wallet.objects.values_list("balance_nanousd", flat=True)) == 100_000 * 10**9
