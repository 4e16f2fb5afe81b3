import re
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils.html import escape

from accounts.models import Account, User
from keys import authenticating
from keys.models import ApiKey, KeySecret
from tests.concurrency import in_parallel
from tests.factories import make_account, make_model, make_user

pytestmark = pytest.mark.django_db

CREATE = "/keys/create/"


@pytest.fixture
def user() -> User:
    return make_user("ada@example.com")


@pytest.fixture
def account(user: User) -> Account:
    return make_account(user=user)


@pytest.fixture
def member(client: Client, user: User, account: Account) -> Client:
    client.force_login(user)
    return client


def token_of(client: Client, address: str = CREATE) -> str:
    return str(client.get(address).context["token"])


def typed(**changes: Any) -> dict[str, Any]:
    return {"name": "checkout", "environment": "development", **changes}


def test_the_answer_shows_the_secret_once_with_snippets_that_work(member: Client, account: Account) -> None:
    make_model("premium-model", tier="premium")
    make_model("basic-model")
    page = member.post(CREATE, typed(token=token_of(member)))

    key = ApiKey.objects.get()
    secret = page.context["secret"]
    html = page.content.decode()
    credential = authenticating.find(secret=secret)
    assert credential is not None
    assert credential.key_id == key.pk
    assert key.account == account
    assert html.count(secret) == 2  # to copy, and to export
    assert "http://testserver/v1/chat/completions" in html
    assert html.count("basic-model") == 3
    assert f'href="/keys/{key.pk}/"' in html
    assert "no-store" in page["Cache-Control"]


def test_a_reload_of_the_answer_makes_no_second_key_and_shows_no_secret(member: Client) -> None:
    data = typed(token=token_of(member))
    secret = member.post(CREATE, data).context["secret"]
    again = member.post(CREATE, data, follow=True)
    key = ApiKey.objects.get()
    assert again.redirect_chain == [(f"/keys/{key.pk}/", 302)]
    assert "rotate the key" in again.content.decode()
    assert secret not in again.content.decode()
    # The message of that answer has not brought the unused token back.
    member.post(CREATE, data)
    assert KeySecret.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_double_click_makes_one_key(member: Client) -> None:
    data = typed(token=token_of(member))
    statuses = in_parallel(lambda _number: member.post(CREATE, data).status_code, times=2)
    assert sorted(statuses) == [200, 302]
    assert KeySecret.objects.count() == 1


def test_the_secret_is_in_no_session_and_no_address(member: Client) -> None:
    page = member.post(CREATE, typed(token=token_of(member)))
    secret = page.context["secret"]
    assert not any(secret in str(session.get_decoded()) for session in Session.objects.all())
    assert not any(secret in value for value in page.headers.values())
    assert not re.search(rf'(href|src|action|value)="[^"]*{secret}', page.content.decode())


def test_a_form_that_this_session_never_got_makes_nothing_and_keeps_what_was_typed(member: Client) -> None:
    assert "open for too long" in member.post(CREATE, typed()).content.decode()
    page = member.post(CREATE, typed(token="made-up", purpose="kept as typed"))
    assert "open for too long" in page.content.decode()
    assert "kept as typed" in page.content.decode()
    assert not ApiKey.objects.exists()
    assert member.post(CREATE, typed(token=page.context["token"])).context["secret"]


def test_a_form_with_a_mistake_can_be_sent_again(member: Client) -> None:
    token = token_of(member)
    page = member.post(CREATE, typed(name="", token=token))
    assert "This field is required." in page.content.decode()
    assert page.context["token"] == token
    assert member.post(CREATE, typed(token=token)).context["secret"]


def test_opening_many_forms_does_not_fill_the_session(member: Client) -> None:
    first = token_of(member)
    tokens = [token_of(member) for _ in range(25)]
    assert len(member.session["one_time_forms"]) == 20
    assert "secret" not in member.post(CREATE, typed(token=first)).context
    assert member.post(CREATE, typed(token=tokens[-1])).context["secret"]


def test_everything_that_is_chosen_is_kept(member: Client, user: User) -> None:
    make_model("one")
    make_model("two")
    member.post(
        CREATE,
        typed(
            token=token_of(member),
            purpose="pays the bills",
            owner=user.pk,
            environment="production",
            expires_at="2099-12-31T23:59",
            allowed_models=["two"],
            allowed_endpoints=["chat/completions", "messages"],
            allowed_networks="10.0.0.1/8, 203.0.113.7\n2001:db8::/32",
            requests_per_minute="5",
            tokens_per_minute="5000",
        ),
    )
    key = ApiKey.objects.get()
    assert (key.name, key.purpose, key.owner, key.environment) == (
        "checkout",
        "pays the bills",
        user,
        "production",
    )
    assert key.expires_at is not None
    assert key.expires_at.isoformat() == "2099-12-31T23:59:00+00:00"
    assert (key.allowed_models, key.allowed_endpoints) == (["two"], ["chat/completions", "messages"])
    assert key.allowed_networks == ["10.0.0.0/8", "203.0.113.7/32", "2001:db8::/32"]
    assert (key.requests_per_minute, key.tokens_per_minute) == (5, 5000)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"allowed_networks": "10.0.0.0/8 nonsense"}, "“nonsense” is no network"),
        ({"expires_at": "2020-01-01T00:00"}, "This moment has passed"),
        ({"requests_per_minute": "0"}, "greater than or equal to 1"),
        ({"tokens_per_minute": str(2**31)}, "less than or equal to 2147483647"),
        ({"allowed_models": ["unknown"]}, "unknown is not one of the available choices"),
        ({"environment": ""}, "This field is required"),
    ],
)
def test_a_mistake_is_shown_beside_its_field(member: Client, wrong: dict[str, Any], message: str) -> None:
    page = member.post(CREATE, typed(token=token_of(member), **wrong))
    (field,) = wrong
    html = page.content.decode()
    assert escape(message) in html
    assert list(page.context["form"].errors) == [field]
    assert not ApiKey.objects.exists()
    if field not in {"expires_at", "environment"}:
        assert re.search(r"<details[^>]* open>", html)


def test_only_members_can_be_chosen_as_owner(member: Client) -> None:
    stranger = make_user()
    page = member.post(CREATE, typed(token=token_of(member), owner=stranger.pk))
    assert list(page.context["form"].errors) == ["owner"]
    assert stranger.email not in page.content.decode()


def test_the_snippets_name_a_model_that_the_key_may_call(member: Client) -> None:
    make_model("a-basic-model")
    make_model("a-premium-model", tier="premium")
    page = member.post(CREATE, typed(token=token_of(member), allowed_models=["a-premium-model"]))
    assert page.context["example_model"] == "a-premium-model"


def test_without_a_model_the_page_says_where_to_look(member: Client) -> None:
    make_model("embedder", kind="embedding")
    page = member.post(CREATE, typed(token=token_of(member)))
    assert page.context["example_model"] is None
    assert "No chat model in the catalog" in page.content.decode()


def test_a_name_is_shown_as_text(member: Client) -> None:
    page = member.post(CREATE, typed(token=token_of(member), name="<script>alert(1)</script>"))
    assert "<script>alert" not in page.content.decode()


def test_a_stranger_is_asked_to_sign_in(client: Client) -> None:
    for answer in (client.get(CREATE), client.post(CREATE, typed(token="x"))):
        assert answer.status_code == 302
        assert answer["Location"].startswith("/accounts/login/")
    assert not ApiKey.objects.exists()


def test_a_token_of_another_session_is_worth_nothing(member: Client) -> None:
    token = token_of(member)
    other = Client()
    user = make_user()
    make_account(user=user)
    other.force_login(user)
    assert "open for too long" in other.post(CREATE, typed(token=token)).content.decode()
    assert not ApiKey.objects.exists()


def test_all_mistakes_are_shown_at_once(member: Client) -> None:
    page = member.post(CREATE, typed(token=token_of(member), name="", requests_per_minute="0"))
    assert list(page.context["form"].errors) == ["name", "requests_per_minute"]
    assert page.content.decode().count("is-invalid") == 2
