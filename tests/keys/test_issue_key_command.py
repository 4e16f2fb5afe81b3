from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent
from keys import authenticating
from keys.models import ApiKey
from tests.factories import make_account, make_user

pytestmark = pytest.mark.django_db


def issue(*arguments: str) -> tuple[str, str]:
    """What the command prints on standard output and on standard error."""
    out, err = StringIO(), StringIO()
    call_command("issue_key", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_secret_stands_alone_on_standard_output() -> None:
    user = make_user("ada@example.com")
    account = make_account(user=user)
    out, err = issue("ADA@example.com", "night job", "--environment", "production")
    secret = out.removesuffix("\n")
    credential = authenticating.find(secret=secret)
    assert credential is not None
    key = ApiKey.objects.get(pk=credential.key_id)
    assert (key.account, key.owner, key.name, key.environment) == (account, user, "night job", "production")
    assert secret.startswith("tg_live_")
    assert secret not in err
    assert "night job" in err
    assert AuditEvent.objects.get(action="key.issued").actor is None


def test_a_key_is_for_development_unless_told_otherwise() -> None:
    make_account(user=make_user("ada@example.com"))
    assert issue("ada@example.com", "x")[0].startswith("tg_test_")


def test_an_unknown_email_is_told_what_to_do() -> None:
    with pytest.raises(CommandError, match=r"create_account nobody@example\.com"):
        issue("nobody@example.com", "x")


def test_a_user_without_an_account_is_told_what_to_do() -> None:
    make_user("operator@example.com")
    with pytest.raises(CommandError, match="belongs to no account"):
        issue("operator@example.com", "x")


def test_a_wrong_name_is_said_without_a_traceback() -> None:
    make_account(user=make_user("ada@example.com"))
    with pytest.raises(CommandError, match="at most 80 characters"):
        issue("ada@example.com", "x" * 81)
