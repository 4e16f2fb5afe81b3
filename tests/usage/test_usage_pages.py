"""The pages below /usage/, read by their owner and tried by an outsider."""

import csv
import datetime as dt
import io
import json
import re
import uuid
from collections.abc import Iterator

import pytest
import time_machine
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from accounts.models import Account, AuditEvent, User
from keys.models import ApiKey
from tests import factories
from tests.usage.rows import make_record
from usage import rollups
from usage.models import Anomaly

AT = dt.datetime(2026, 3, 18, 14, 30, tzinfo=dt.UTC)
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("now")]


@pytest.fixture
def now() -> Iterator[None]:
    with time_machine.travel(AT, tick=False):
        yield


@pytest.fixture
def owner(db: None) -> User:
    return factories.make_user("owner@example.com")


@pytest.fixture
def account(owner: User) -> Account:
    return factories.make_account(credit="5", user=owner)


@pytest.fixture
def key(account: Account) -> ApiKey:
    return factories.make_key(account, name="production site").key


@pytest.fixture
def reader(client: Client, owner: User, account: Account) -> Client:
    client.force_login(owner)
    return client


@pytest.fixture
def outsider() -> Client:
    stranger = factories.make_user()
    factories.make_account(user=stranger)
    client = Client()
    client.force_login(stranger)
    return client


def make_alert(account: Account, **fields: object) -> Anomaly:
    amounts = {"expected_nanousd": 10**9, "threshold_nanousd": 25 * 10**8, "observed_nanousd": 10**10}
    return Anomaly.objects.create(account=account, hour=AT.replace(minute=0), **amounts, **fields)


def figure(page: str, ident: str) -> str:
    found = re.search(rf'id="{ident}">([^<]+)<', page)
    assert found
    return found[1]


def chart(page: str) -> dict[str, object]:
    found = re.search(r'<script id="usage-series" type="application/json">(.+?)</script>', page)
    assert found
    document = json.loads(found[1])
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", ["overview", "export", "requests", "alerts"])
def test_a_page_sends_strangers_to_the_login(client: Client, name: str) -> None:
    address = reverse(f"usage:{name}")
    response = client.get(address)
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("account_login"))


def test_the_chart_its_table_and_the_totals_say_the_same(
    reader: Client, account: Account, key: ApiKey
) -> None:
    large, small = factories.make_model("acme-large"), factories.make_model("acme-small")
    make_record(account=account, key=key, model=large, at=AT, cost_nanousd=1_250_000_000)
    make_record(account=account, key=key, model=small, at=AT - dt.timedelta(days=2), cost_nanousd=12_500)
    make_record(account=account, key=key, model=None, at=AT, outcome="refused", status=404)
    rollups.roll_up(at=AT, batch=2)
    make_record(account=account, key=key, model=large, at=AT - dt.timedelta(days=7), cost_nanousd=1)

    page = reader.get("/usage/").content.decode()

    assert figure(page, "total-charged") == "$1.2500125"
    assert figure(page, "total-requests") == "2"
    assert figure(page, "total-input") == "200"
    drawn = chart(page)
    assert drawn["labels"] == [f"2026-03-{day}" for day in range(12, 19)]
    assert [dataset["label"] for dataset in drawn["datasets"]] == ["acme-large", "acme-small"]  # type: ignore[attr-defined]
    # Two figures, the sum of the chart's numbers, and the table's list price and spend.
    assert page.count("$1.2500125") == 5
    assert "Spend by model" in page


@pytest.mark.parametrize(
    ("query", "requests"),
    [
        ("range=today", 1),
        ("", 2),
        ("range=30d", 3),
        ("range=custom&start=2026-02-16&end=2026-02-17", 1),
        ("range=30d&model=acme-small", 1),
        ("range=today&step=hour&by=key&metric=requests", 1),
    ],
)
def test_the_range_and_the_filters_choose(
    reader: Client, account: Account, key: ApiKey, query: str, requests: int
) -> None:
    large, small = factories.make_model("acme-large"), factories.make_model("acme-small")
    for days, model in [(0, large), (3, small), (29, large)]:
        make_record(account=account, key=key, model=model, at=AT - dt.timedelta(days=days))
    page = reader.get(f"/usage/?{query}").content.decode()
    assert figure(page, "total-requests") == str(requests)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("range=custom&start=2026-03-02", "To: Give both dates."),
        ("range=custom&start=2026-03-02&end=2026-03-01", "ends before it starts"),
        ("range=custom&start=1926-03-02&end=2026-03-01", "At most 366 days"),
        ("range=custom&start=yesterday&end=2026-03-01", "valid date"),
        ("range=century", "not one of the available choices"),
        ("by=%00", "not one of the available choices"),
    ],
)
def test_a_selection_that_makes_no_sense_is_said_and_shows_the_last_week(
    reader: Client, query: str, complaint: str
) -> None:
    response = reader.get(f"/usage/?{query}")
    assert response.status_code == 200
    page = response.content.decode()
    assert complaint in page
    assert "The last 7 days are shown instead." in page


def test_another_accounts_key_is_no_choice_of_the_filter(reader: Client) -> None:
    foreign = factories.make_key().key
    page = reader.get(f"/usage/?key={foreign.pk}").content.decode()
    assert "not one of the available choices" in page
    assert foreign.name not in page


def test_the_first_page_says_what_to_do(reader: Client) -> None:
    assert "Create a key" in reader.get("/usage/?range=30d").content.decode()
    assert "Create a key" in reader.get("/usage/requests/").content.decode()
    assert "No open alert" in reader.get("/usage/alerts/").content.decode()


def test_htmx_gets_the_report_alone_and_caches_tell_them_apart(reader: Client) -> None:
    for address in ("/usage/", "/usage/requests/"):
        response = reader.get(address, headers={"HX-Request": "true"})
        assert b"<html" not in response.content
        assert "HX-Request" in response["Vary"]
        restored = reader.get(address, headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
        assert b"<html" in restored.content


def test_the_number_of_queries_does_not_grow_with_usage(
    reader: Client, account: Account, key: ApiKey, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for i in range(30):
        model = factories.make_model(f"m{i}")
        one = factories.make_key(account).key
        make_record(account=account, key=one, model=model, at=AT)
        make_alert(account, key=one, model=model)
    for address in ("/usage/", "/usage/?by=key", "/usage/requests/", "/usage/alerts/"):
        with django_assert_max_num_queries(9):
            assert reader.get(address).status_code == 200


def test_the_csv_is_exact_and_no_cell_is_a_formula(reader: Client, account: Account) -> None:
    key = factories.make_key(account, name='=HYPERLINK("https://evil.example")', environment="production").key
    model = factories.make_model("acme-large")
    for _ in range(2):
        make_record(account=account, key=key, model=model, at=AT, cost_nanousd=12_500)
        rollups.roll_up(at=AT, batch=1)
    other = factories.make_key().key
    make_record(account=other.account, key=other, model=model, at=AT, charged_nanousd=0)

    response = reader.get("/usage/usage.csv?range=today")

    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="usage-2026-03-18-hours.csv"' in response["Content-Disposition"]
    (line,) = csv.DictReader(io.StringIO(response.content.decode()))
    assert line["period_start_utc"] == "2026-03-18T14:00:00Z"
    assert line["key_name"].startswith("'=")
    assert (line["requests"], line["input_tokens"], line["charged_usd"]) == ("2", "200", "0.000025000")


def test_the_log_pages_both_ways_by_id(reader: Client, account: Account, key: ApiKey) -> None:
    model = factories.make_model("acme-large")
    records = [
        make_record(account=account, key=key, model=model, at=AT - dt.timedelta(seconds=i))
        for i in range(101)
    ]

    def listed(page: str) -> list[str]:
        return re.findall(r'href="/usage/requests/([0-9a-f-]{36})/"', page)

    def link(page: str, rel: str) -> str:
        found = re.search(rf'href="([^"]+)" rel="{rel}"', page)
        return found[1].replace("&amp;", "&") if found else ""

    first = reader.get("/usage/requests/?model=acme-large").content.decode()
    assert listed(first) == [str(record.pk) for record in records[:50]]
    assert link(first, "prev") == ""
    second = reader.get("/usage/requests/" + link(first, "next")).content.decode()
    assert listed(second) == [str(record.pk) for record in records[50:100]]
    third = reader.get("/usage/requests/" + link(second, "next")).content.decode()
    assert listed(third) == [str(records[100].pk)]
    assert link(third, "next") == ""
    back = reader.get("/usage/requests/" + link(third, "prev")).content.decode()
    assert listed(back) == listed(second)
    front = reader.get("/usage/requests/" + link(back, "prev")).content.decode()
    assert listed(front) == listed(first)
    assert link(front, "prev") == ""


@pytest.mark.parametrize(
    "query", ["outcome=refused", "status=404", "key={other}", "older_than=nonsense&status=404"]
)
def test_the_log_is_filtered(reader: Client, account: Account, key: ApiKey, query: str) -> None:
    other = factories.make_key(account, name="the other").key
    make_record(account=account, key=key, model=factories.make_model(), at=AT)
    wanted = make_record(account=account, key=other, model=None, at=AT, outcome="refused", status=404)
    page = reader.get(f"/usage/requests/?{query.format(other=other.pk)}").content.decode()
    assert re.findall(r'href="/usage/requests/([0-9a-f-]{36})/"', page) == [str(wanted.pk)]


def test_a_filter_that_makes_no_sense_is_said(reader: Client) -> None:
    for query in ("status=teapot", "outcome=lost", "key=none"):
        assert "Nothing is filtered." in reader.get(f"/usage/requests/?{query}").content.decode()


def test_a_receipt_has_every_fact(reader: Client, account: Account, key: ApiKey, outsider: Client) -> None:
    record = make_record(
        account=account,
        key=key,
        model=factories.make_model("acme-large"),
        at=AT,
        input_tokens=1000,
        cached_input_tokens=400,
        input_usd_per_mtok="1.25",
        output_usd_per_mtok="10",
        cost_nanousd=12_500,
        latency_ms=1234,
        time_to_first_token_ms=321,
        is_streamed=True,
        finish_reason="length",
        client_request_id="mine-77",
    )
    address = f"/usage/requests/{record.pk}/"
    page = reader.get(address).content.decode()
    for fact in (
        str(record.pk), "acme-large", "sandbox", "length", "1,234 ms", "321 ms", "mine-77", "$0.0000125",
        ">600<", ">400<", "1.250000", "10.000000", "streamed",
    ):  # fmt: skip
        assert fact in page
    assert outsider.get(address).status_code == 404
    assert Client().get(address).status_code == 302
    assert reader.get(f"/usage/requests/{uuid.uuid4()}/").status_code == 404


def test_a_refusal_says_what_would_unblock(reader: Client, account: Account, key: ApiKey) -> None:
    record = make_record(
        account=account,
        key=key,
        model=factories.make_model(tier="premium"),
        at=AT,
        outcome="refused",
        status=403,
        error_code="plan_upgrade_required",
        error_message="acme-large is a premium model.",
    )
    page = reader.get(f"/usage/requests/{record.pk}/").content.decode()
    assert "acme-large is a premium model." in page
    assert f'<a href="{reverse("billing:buy")}">Buy credits</a>' in page
    assert "Nothing was charged." in page


def test_an_alert_explains_itself_and_leads_to_the_freeze(
    reader: Client, account: Account, key: ApiKey
) -> None:
    make_alert(account, key=key, model=factories.make_model("acme-large"))
    page = reader.get("/usage/alerts/").content.decode()
    for fact in ("Key production site spent far more", "$10.00", "$1.00", "$2.50", "acme-large", "14:00 UTC"):
        assert fact in page
    assert reverse("keys:disable", args=[key.pk]) in page


def test_acknowledging_is_a_post_and_is_in_the_audit_log_once(
    reader: Client, owner: User, account: Account, outsider: Client
) -> None:
    alert = make_alert(account)
    address = f"/usage/alerts/{alert.pk}/acknowledge/"
    assert reader.get(address).status_code == 405
    assert outsider.post(address).status_code == 404
    assert Client().post(address).status_code == 302
    alert.refresh_from_db()
    assert alert.acknowledged_at is None

    for _ in range(2):
        assert reader.post(address)["Location"] == "/usage/alerts/"
    alert.refresh_from_db()
    assert alert.acknowledged_at == AT
    event = AuditEvent.objects.get(action="anomaly.acknowledged")
    assert (event.account, event.actor) == (account, owner)
    assert "Acknowledged 20" in re.sub(r"<[^>]+>", "", reader.get("/usage/alerts/").content.decode())


def test_an_outsider_sees_nothing_of_it(outsider: Client, account: Account, key: ApiKey) -> None:
    make_record(account=account, key=key, model=factories.make_model("acme-large"), at=AT)
    make_alert(account, key=key)
    for address in (
        "/usage/",
        f"/usage/?key={key.pk}",
        "/usage/requests/",
        "/usage/alerts/",
        "/usage/usage.csv",
    ):
        page = outsider.get(address).content.decode()
        assert "production site" not in page
        assert "usage/requests/0" not in page


def test_the_operator_can_look_and_not_touch(client: Client, account: Account, key: ApiKey) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    client.force_login(operator)
    record = make_record(account=account, key=key, model=factories.make_model(), at=AT)
    rollups.roll_up(at=AT)
    make_alert(account, key=key)
    for name in ("usagerecord", "hourlyusage", "dailyallowance", "anomaly"):
        assert client.get(f"/admin/usage/{name}/").status_code == 200
        assert client.get(f"/admin/usage/{name}/add/").status_code == 403
    address = f"/admin/usage/usagerecord/{record.pk}/change/"
    assert client.get(address).status_code == 200
    assert client.post(address, {"charged_nanousd": 0}).status_code == 403
    assert client.post(f"/admin/usage/usagerecord/{record.pk}/delete/", {"post": "yes"}).status_code == 403
