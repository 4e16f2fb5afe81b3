"""The list of keys and the page of one."""

import datetime as dt

import pytest
from django.test import Client
from pytest_django.fixtures import DjangoAssertNumQueries

from accounts.models import Account, User
from catalog.money import NANO_PER_USD
from config import key_pages
from keys import policies, revoking, rotating
from keys.models import ApiKey
from tests.factories import make_account, make_budget, make_key, make_model, make_user, now
from usage import budgeting
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db


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


def names(page: object) -> list[str]:
    return [row.key.name for row in page.context["rows"]]  # type: ignore[attr-defined]


def record(key: ApiKey, **facts: object) -> UsageRecord:
    import uuid_utils.compat as uuid

    values = {"endpoint": "chat/completions", "outcome": "completed", "status": 200, **facts}
    return UsageRecord.objects.create(
        id=uuid.uuid7(), account=key.account, key=key, started_at=now(), ended_at=now(), **values
    )


def test_an_account_without_keys_is_told_what_to_do(member: Client) -> None:
    html = member.get("/keys/").content.decode()
    assert "No keys yet" in html
    assert 'href="/keys/create/"' in html
    assert 'role="search"' not in html


def test_a_line_says_what_there_is_to_know(member: Client, account: Account, user: User) -> None:
    issued = make_key(
        account,
        name="checkout",
        environment="production",
        owner=user,
        requests_per_minute=3,
        tokens_per_minute=1500,
    )
    make_budget(issued.key, period="month", limit_nanousd=5 * NANO_PER_USD, actor=user)
    used = record(issued.key, charged_nanousd=12_500, cost_nanousd=12_500)
    html = member.get("/keys/").content.decode()
    for shown in (
        "checkout",
        "Production",
        f"{issued.secret[:12]}…{issued.secret[-4:]}",
        "ada@example.com",
        used.started_at.strftime("%Y-%m-%d %H:%M UTC"),
        "$0.0000125",
        "3 requests/min",
        "1,500 tokens/min",
        "$5.00 a month",
        "Active",
    ):
        assert shown in html
    assert issued.secret not in html


def test_the_list_costs_the_same_however_many_keys_there_are(
    member: Client, account: Account, user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(30):
        key = make_key(account, name=f"key {number}", owner=user).key
        make_budget(key, period="day", limit_nanousd=1)
    # Session, user, account, keys, their secrets, their budgets, their usage, and the wallet of the top bar.
    with django_assert_num_queries(8):
        assert len(names(member.get("/keys/"))) == 30


def test_the_list_is_narrowed_by_name_environment_and_status(member: Client, account: Account) -> None:
    make_key(account, name="Alpha", environment="production")
    make_key(account, name="beta", purpose="the alpha of it", environment="staging")
    revoking.disable(key=make_key(account, name="gamma").key, actor=None, at=now())
    revoking.revoke(key=make_key(account, name="delta").key, actor=None, at=now())
    make_key(account, name="epsilon", expires_at=now() + dt.timedelta(days=1))
    expired = make_key(account, name="zeta", expires_at=now() + dt.timedelta(days=1)).key
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=now() - dt.timedelta(days=1))

    for query, expected in (
        ("", ["zeta", "epsilon", "delta", "gamma", "beta", "Alpha"]),
        ("?q=ALPHA", ["beta", "Alpha"]),
        ("?environment=staging", ["beta"]),
        ("?status=active", ["epsilon", "beta", "Alpha"]),
        ("?status=expired", ["zeta"]),
        ("?status=disabled", ["gamma"]),
        ("?status=revoked", ["delta"]),
        ("?status=active&environment=production&q=alp", ["Alpha"]),
        (
            "?status=nonsense&environment=nonsense&before=nonsense",
            ["zeta", "epsilon", "delta", "gamma", "beta", "Alpha"],
        ),
        ("?q=%00", ["zeta", "epsilon", "delta", "gamma", "beta", "Alpha"]),
    ):
        assert names(member.get(f"/keys/{query}")) == expected, query


def test_a_filter_that_finds_nothing_says_so(member: Client, account: Account) -> None:
    make_key(account)
    html = member.get("/keys/?q=nothing").content.decode()
    assert "No key matches" in html
    assert 'role="search"' in html


def test_htmx_gets_the_table_alone_and_caches_keep_the_two_apart(member: Client, account: Account) -> None:
    make_key(account, name="checkout")
    whole = member.get("/keys/")
    table = member.get("/keys/", headers={"HX-Request": "true"})
    assert "<html" in whole.content.decode()
    assert "<html" not in table.content.decode()
    assert "checkout" in table.content.decode()
    assert "HX-Request" in whole["Vary"]
    assert "HX-Request" in table["Vary"]


def test_older_keys_are_on_the_next_page(
    member: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_pages, "PAGE_SIZE", 2)
    for name in ("a", "b", "c"):
        make_key(account, name=name, environment="staging")
    first = member.get("/keys/?environment=staging")
    assert names(first) == ["c", "b"]
    older = first.context["older_href"]
    assert first.context["newer_href"] == ""
    second = member.get(f"/keys/{older}")
    assert names(second) == ["a"]
    assert (second.context["older_href"], second.context["newer_href"]) == ("", "?environment=staging")


def test_the_list_shows_no_key_of_another_account(member: Client, client: Client) -> None:
    make_key(name="theirs")
    assert "theirs" not in member.get("/keys/").content.decode()


def test_the_page_of_a_key_shows_policy_requests_and_history(
    member: Client, account: Account, user: User
) -> None:
    model = make_model("a-model")
    issued = make_key(account, name="checkout", purpose="pays the bills", allowed_networks=["10.0.0.0/8"])
    policies.change_policy(key=issued.key, actor=user, requests_per_minute=4, allowed_models=["a-model"])
    rotated = rotating.rotate(key=issued.key, actor=user, at=now(), overlap=dt.timedelta(days=1))
    budget = make_budget(issued.key, period="total", limit_nanousd=2 * NANO_PER_USD, actor=user)
    budgeting.remove_budget(budget=budget, actor=user)
    record(issued.key, model=model, input_tokens=1234, output_tokens=5, charged_nanousd=70, cost_nanousd=70)
    record(issued.key, outcome="refused", status=403, error_message="Top up to call it.")
    html = member.get(f"/keys/{issued.key.pk}/").content.decode()
    for shown in (
        "pays the bills",
        "10.0.0.0/8",
        "Created",
        "Rotated",
        "Policy changed",
        "Requests a minute: none → 4",
        "Models: all → a-model",
        f"New secret {rotated.secret[:12]}…{rotated.secret[-4:]}",
        "Spend limit set",
        "$2.00 in total",
        "Spend limit taken away",
        "ada@example.com",
        f"{issued.secret[:12]}…{issued.secret[-4:]}</code> until",
        "1,234",
        "Top up to call it.",
        f'href="/billing/budgets/add/?scope=key:{issued.key.pk}"',
    ):
        assert shown in html, shown
    assert issued.secret not in html
    assert rotated.secret not in html


def test_a_key_that_was_never_used_shows_how_to_use_it(member: Client, account: Account) -> None:
    make_model("basic-model")
    html = member.get(f"/keys/{make_key(account).key.pk}/").content.decode()
    assert "No request yet" in html
    assert "$TOLLGATE_API_KEY" in html
    assert "basic-model" in html


@pytest.mark.parametrize(
    ("status", "shown", "hidden"),
    [
        ("active", "/disable/", "/enable/"),
        ("disabled", "/enable/", "/disable/"),
        ("revoked", "Create a new one", "/rotate/"),
        ("expired", "Give it a later expiry", "/enable/"),
    ],
)
def test_the_page_offers_what_can_be_done(
    member: Client, account: Account, status: str, shown: str, hidden: str
) -> None:
    key = make_key(account).key
    if status == "disabled":
        revoking.disable(key=key, actor=None, at=now())
    elif status == "revoked":
        revoking.revoke(key=key, actor=None, at=now())
    elif status == "expired":
        ApiKey.objects.filter(pk=key.pk).update(expires_at=now() - dt.timedelta(hours=1))
    html = member.get(f"/keys/{key.pk}/").content.decode()
    assert shown in html
    assert hidden not in html


def test_another_account_gets_404_and_a_stranger_the_login(client: Client) -> None:
    key = make_key().key
    for address in ("/keys/", f"/keys/{key.pk}/"):
        assert client.get(address)["Location"].startswith("/accounts/login/")
    outsider = make_user()
    make_account(user=outsider)
    client.force_login(outsider)
    assert client.get(f"/keys/{key.pk}/").status_code == 404
    assert client.get(f"/keys/{10**30}/").status_code == 404
