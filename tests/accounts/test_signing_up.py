"""Signing up, signing in and getting back in, as strangers see them."""

import re
import threading
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest
from django.test import Client

from accounts.models import Account, AuditEvent, Membership, Plan, User
from tests import factories

pytestmark = pytest.mark.django_db

PASSWORD = "a long enough one"
CODE = re.compile(r"^[A-Z0-9]{3,4}-?[A-Z0-9]{3,4}$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_attempts_yet() -> None:
    """Rate limits count in Redis, which outlives a test."""
    cache.clear()


def sign_up(client: Client, email: str, password: str = PASSWORD) -> Any:
    return client.post("/accounts/signup/", {"email": email, "password1": password})


def without_tokens(content: bytes, *emails: str) -> str:
    """A page without what differs between any two requests: CSRF tokens and the address itself."""
    page = re.sub(r'(csrfmiddlewaretoken" value|csrf-token" content)="[^"]+"', "", content.decode())
    for email in emails:
        page = page.replace(email, "EMAIL")
    return page


def known_user(email: str = "ada@example.com") -> User:
    user = factories.make_account(user=factories.make_user(email)).members.get()
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user


def test_a_sign_up_makes_an_account_that_the_user_owns_on_the_basic_plan(client: Client) -> None:
    sign_up(client, "New.Person@Example.com")

    account = Account.objects.get()
    assert account.plan.slug == Plan.BASIC
    assert account.name == "new.person@example.com"
    membership = account.memberships.get()
    assert (membership.user.email, membership.role) == ("new.person@example.com", Membership.Role.OWNER)
    assert AuditEvent.objects.get().action == "account.opened"


def test_a_sign_up_lets_nobody_in_before_the_code_is_entered(client: Client) -> None:
    answer = sign_up(client, "new@example.com")

    assert answer.status_code == 302
    assert client.get("/overview/").status_code == 302
    code = CODE.search(str(mail.outbox[0].body))
    assert code is not None
    confirmed = client.post(answer["Location"], {"code": code.group()})
    assert confirmed["Location"] == "/overview/"
    assert client.get("/overview/").status_code == 200


def test_a_wrong_code_confirms_nothing(client: Client) -> None:
    answer = sign_up(client, "new@example.com")

    page = client.post(answer["Location"], {"code": "WRNG-CODE"})

    assert page.status_code == 200
    assert b"Incorrect code" in page.content
    assert not EmailAddress.objects.get().verified


def test_a_sign_up_looks_the_same_whether_or_not_the_address_is_known() -> None:
    known_user()
    pages = {}
    for email in ("ada@example.com", "new@example.com"):
        client = Client()
        answer = sign_up(client, email)
        page = client.get(answer["Location"])
        pages[email] = (
            answer.status_code,
            answer["Location"],
            page.status_code,
            without_tokens(page.content, email),
            sorted(client.cookies),
        )

    assert pages["ada@example.com"] == pages["new@example.com"]
    assert User.objects.count() == 2
    assert [message.to for message in mail.outbox] == [["ada@example.com"], ["new@example.com"]]
    assert "already has an account" in mail.outbox[0].body


def test_a_sign_up_hashes_a_password_whether_or_not_the_address_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hash is the time that a sign-up takes, so counting it says more than a clock on a busy machine."""
    from django.contrib.auth.hashers import MD5PasswordHasher

    known_user()
    hashed: list[str] = []
    encode = MD5PasswordHasher.encode

    def counted(self: MD5PasswordHasher, password: str, salt: str) -> str:
        hashed.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counted)
    counts = []
    for email in ("ada@example.com", "new@example.com"):
        hashed.clear()
        sign_up(Client(), email)
        counts.append(len(hashed))

    assert counts == [1, 1]


def test_a_sign_in_fails_the_same_way_whether_or_not_the_address_is_known() -> None:
    known_user()
    pages = []
    for email in ("ada@example.com", "new@example.com"):
        page = Client().post("/accounts/login/", {"login": email, "password": "not the password"})
        pages.append((page.status_code, without_tokens(page.content, email)))

    assert pages[0] == pages[1]


def test_a_password_reset_looks_the_same_whether_or_not_the_address_is_known() -> None:
    known_user()
    pages = []
    for email in ("ada@example.com", "new@example.com"):
        client = Client()
        answer = client.post("/accounts/password/reset/", {"email": email})
        page = client.get(answer["Location"])
        wrong = client.post(answer["Location"], {"code": "WRNG-CODE"})
        pages.append(
            (
                answer.status_code,
                answer["Location"],
                page.status_code,
                without_tokens(page.content, email),
                wrong.status_code,
                without_tokens(wrong.content, email),
            )
        )

    assert pages[0] == pages[1]
    assert "no account with this address" in mail.outbox[1].subject


def test_a_forgotten_password_is_replaced_with_a_code_from_the_mail() -> None:
    user = known_user()
    client = Client()
    answer = client.post("/accounts/password/reset/", {"email": user.email})
    code = CODE.search(str(mail.outbox[0].body))
    assert code is not None

    page = client.post(answer["Location"], {"code": code.group()}, follow=True)
    address = page.redirect_chain[-1][0]
    client.post(address, {"password1": "another long one", "password2": "another long one"})

    user.refresh_from_db()
    assert user.check_password("another long one")
    assert mail.outbox[-1].subject == "Tollgate: your password was reset"


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("new@example.com", "short"),
        ("new@example.com", "password123"),
        ("not an address", PASSWORD),
        ("", PASSWORD),
        (f"{'a' * 300}@example.com", PASSWORD),
        ("nul\x00@example.com", PASSWORD),
    ],
)
def test_a_sign_up_that_cannot_be_is_explained_and_makes_nothing(
    client: Client, email: str, password: str
) -> None:
    page = sign_up(client, email, password)

    assert page.status_code == 200
    assert b"invalid-feedback" in page.content
    assert not User.objects.exists()


def test_an_address_longer_than_a_name_can_sign_up(client: Client) -> None:
    email = f"{'a' * 60}@{'b' * 60}.{'c' * 60}.example.com"

    assert sign_up(client, email).status_code == 302
    assert Account.objects.get().name == email[:120]


def test_mail_carries_our_name_and_no_placeholder(client: Client) -> None:
    sign_up(client, "new@example.com")

    message = mail.outbox[0]
    assert message.subject == "Tollgate: your code to confirm this address"
    assert "Tollgate, testserver" in message.body
    assert "{{" not in message.body


def test_a_sign_up_is_limited_by_address_of_the_client(client: Client) -> None:
    statuses = [sign_up(client, f"person{i}@example.com", "short").status_code for i in range(21)]

    assert statuses[:20] == [200] * 20
    assert statuses[20] == 429
    assert b"Too many attempts" in sign_up(client, "one-more@example.com").content


def test_passwords_are_hashed_with_argon2id() -> None:
    from django.contrib.auth.hashers import Argon2PasswordHasher

    encoded = Argon2PasswordHasher().encode(PASSWORD, "c29tZXNhbHQ")

    assert encoded.startswith("argon2$argon2id$")


def test_whoever_already_signed_in_is_sent_on_from_sign_up(client: Client) -> None:
    client.force_login(known_user())

    assert client.get("/accounts/signup/")["Location"] == "/overview/"


@pytest.mark.django_db(transaction=True)
def test_two_sign_ups_with_one_address_at_once_make_one_user() -> None:
    """Both have found the address free before either has made its user."""
    from accounts.forms import SignupForm

    barrier = threading.Barrier(2, timeout=20)
    statuses: list[int] = []
    original = SignupForm.try_save

    def at_once(self: SignupForm, request: HttpRequest) -> Any:
        barrier.wait()
        return original(self, request)

    def one() -> None:
        try:
            statuses.append(sign_up(Client(), "twice@example.com").status_code)
        finally:
            connection.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SignupForm, "try_save", at_once)
        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # The second is told to wait: an address gets one mail in ten seconds, known or not.
    assert sorted(statuses) == [302, 429]
    assert User.objects.count() == 1
    assert Account.objects.count() == 1


def test_an_operator_without_an_account_lands_in_the_admin(client: Client) -> None:
    user = factories.make_user("op@example.com", is_staff=True)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)

    answer = client.post("/accounts/login/", {"login": user.email, "password": "correct horse 9"})

    assert answer["Location"] == "/admin/"
    assert client.get("/")["Location"] == "/admin/"


def test_a_new_address_takes_the_password_and_a_code_and_the_former_one_is_told() -> None:
    user = known_user()
    client = Client()
    client.post("/accounts/login/", {"login": user.email, "password": "correct horse 9"})
    mail.outbox.clear()

    asked = client.post("/accounts/email/", {"action_add": "", "email": "new@example.com"})
    assert asked["Location"].startswith("/accounts/reauthenticate/")
    assert not mail.outbox
    answer = client.post(asked["Location"], {"password": "correct horse 9"})

    user.refresh_from_db()
    assert user.email == "ada@example.com"
    code = CODE.search(str(mail.outbox[-1].body))
    assert code is not None
    client.post(answer["Location"], {"code": code.group()})
    user.refresh_from_db()
    assert user.email == "new@example.com"
    told = {(message.to[0], message.subject) for message in mail.outbox}
    assert ("ada@example.com", "Tollgate: your e-mail address was changed") in told


def test_a_changed_password_signs_out_every_other_browser() -> None:
    user = known_user()
    here, there = Client(), Client()
    for client in (here, there):
        client.post("/accounts/login/", {"login": user.email, "password": "correct horse 9"})

    here.post(
        "/accounts/password/change/",
        {"oldpassword": "correct horse 9", "password1": "another long one", "password2": "another long one"},
    )

    assert here.get("/overview/").status_code == 200
    assert there.get("/overview/").status_code == 302
    assert mail.outbox[-1].subject == "Tollgate: your password was changed"
