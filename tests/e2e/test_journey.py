"""A newcomer's first ten minutes, from the sign-up to a revoked key, as they happen in a browser and a terminal."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from playwright.sync_api import Error, Locator, Page, expect

from catalog.money import nano_from_usd
from config.templatetags.console import number, usd
from tests.e2e.furnishing import BASIC, PREMIUM
from tests.instance import Instance

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("instance")]

EMAIL, PASSWORD = "ada@example.com", "an engine that weaves 1843"
_MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How many stars are there?"}]
_SUMS = f"""
import json
from django.db.models import Sum
from usage.models import UsageRecord
print(json.dumps(UsageRecord.objects.filter(account__name="{EMAIL}").aggregate(
    input=Sum("input_tokens"), output=Sum("output_tokens"), charged=Sum("charged_nanousd"))))
"""
# What a canvas without a drawing has none of.
_PAINTED_PIXELS = """
(canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    .filter((value, index) => index % 4 === 3 && value > 0).length
"""


@dataclass
class Calls:
    """What the gateway's answers said they used, to be found again on the pages; money in nano-USD."""

    base_url: str
    requests: Counter[str] = field(default_factory=Counter)
    charged_nanousd: int = 0

    def client(self, secret: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key=secret, max_retries=0)

    def chat(self, secret: str, model: str = BASIC) -> int:
        """One plain call; returns what it was charged."""
        answer = self.client(secret).chat.completions.with_raw_response.create(
            model=model,
            messages=_MESSAGES,
        )
        assert answer.parse().choices[0].message.content
        charged = nano_from_usd(Decimal(answer.headers["x-tollgate-cost-usd"]))
        self.requests[model] += 1
        self.charged_nanousd += charged
        return charged

    def stream(self, secret: str) -> None:
        """One streamed call."""
        chunks = list(
            self.client(secret).chat.completions.create(
                model=BASIC,
                messages=_MESSAGES,
                stream=True,
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.requests[BASIC] += 1

    def run(self, command: list[str], secret: str) -> str:
        """A snippet as a reader runs it: with the secret in the environment, and nothing else of ours.

        Returns what it has printed.
        """
        environ = {"PATH": os.environ["PATH"], "TOLLGATE_API_KEY": secret}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        self.requests[BASIC] += 1
        return done.stdout


def test_a_newcomer_signs_up_calls_models_buys_credits_and_reads_every_cent_back(
    page: Page, shared_instance: Instance
) -> None:
    calls = Calls(f"{shared_instance.url}/v1")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=shared_instance.url)

    sign_up(page)
    secret, snippets = create_first_key(page, calls.base_url)
    the_secret_is_gone(page, secret)
    the_overview_notices_the_first_call(page, calls, secret, snippets)
    calls.chat(secret)
    calls.stream(secret)
    a_premium_model_is_refused(calls, secret)

    buy_twenty_dollars(page)
    charged = calls.chat(secret, PREMIUM)
    assert charged > 0
    the_balance_is(page, 20 * 10**9 - charged)
    second_secret = create_second_key(page)
    calls.chat(second_secret)

    the_usage_page_shows(page, calls, the_books(shared_instance, calls, secret))

    new_secret = rotate(page, secret)
    assert refusal(calls, secret).status_code == 401
    calls.chat(new_secret)
    revoke(page)
    assert refusal(calls, new_secret).code == "revoked_api_key"
    calls.chat(second_secret)


# --- Steps -------------------------------------------------------------------------------------------------


def sign_up(page: Page) -> None:
    """E-mail and password, the code from the outbox, and there is the overview with the first steps."""
    page.goto("/")
    page.get_by_role("link", name="Create a free account").click()
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    assert not page.get_by_text(re.compile("card number", re.IGNORECASE)).count()
    page.get_by_role("main").get_by_role("button", name="Sign up").click()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Open the outbox").click()
    outbox = opened.value
    mail = outbox.get_by_role("article").filter(has_text=f"To {EMAIL}").first
    code = mail.locator(".mail-code code").inner_text()
    outbox.close()
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_url("**/overview/")
    expect(page.get_by_role("region", name="First steps")).to_contain_text("0 of 3 done")


def create_first_key(page: Page, base_url: str) -> tuple[str, dict[str, str]]:
    """From the first steps to the secret, which the copy button copies; and the three snippets, as copied."""
    page.get_by_role("region", name="First steps").get_by_role("link", name="Create a key").click()
    page.get_by_label("Name").fill("First program")
    page.get_by_role("button", name="Create key").click()
    secret = page.locator("#secret").inner_text()
    assert re.fullmatch(r"tg_(live|test)_[0-9A-Za-z]{38}", secret)
    assert copied(page, page.locator("[data-copy='#secret']")) == secret
    assert copied(page, page.locator("[data-copy='#export']")) == f'export TOLLGATE_API_KEY="{secret}"'
    snippets = {}
    for name, what in (
        ("curl", "curl command"),
        ("Python", "Python program"),
        ("TypeScript", "TypeScript program"),
    ):
        page.get_by_role("tab", name=name).click()
        snippets[name] = copied(page, page.get_by_role("button", name=f"Copy the {what}"))
        assert base_url in snippets[name]
        assert BASIC in snippets[name]
    return secret, snippets


def create_second_key(page: Page) -> str:
    page.goto("/keys/")
    page.get_by_role("link", name="Create key").click()
    page.get_by_label("Name").fill("Second program")
    page.get_by_role("button", name="Create key").click()
    secret = page.locator("#secret").inner_text()
    page.get_by_role("link", name="I have stored it").click()
    return secret


def the_secret_is_gone(page: Page, secret: str) -> None:
    """Neither a reload nor the way back nor the way forth shows it, and the address bar never had it."""
    page.reload()
    expect(page.get_by_role("heading", name="First program", level=1)).to_be_visible()
    assert secret not in page.content()
    for step in (page.go_back, page.go_forward, page.go_back):
        travel(step)
        assert secret not in content(page) + page.url


def the_overview_notices_the_first_call(
    page: Page, calls: Calls, secret: str, snippets: dict[str, str]
) -> None:
    """The snippets work as they were copied, and the page changes without being loaded again."""
    page.goto("/overview/")
    steps = page.get_by_role("region", name="First steps")
    expect(steps).to_contain_text("this page notices your call by itself")
    page.evaluate("window.isTheSamePage = true")

    # A machine without curl still has the other two.
    if shutil.which("curl"):
        answer = json.loads(calls.run(["/bin/sh", "-c", snippets["curl"]], secret))
        assert answer["choices"][0]["message"]["content"]
    else:
        calls.chat(secret)

    expect(steps).to_contain_text("2 of 3 done")
    assert page.evaluate("window.isTheSamePage")
    assert calls.run([sys.executable, "-c", snippets["Python"]], secret).strip()


def a_premium_model_is_refused(calls: Calls, secret: str) -> None:
    refused = refusal(calls, secret, PREMIUM)
    assert (refused.status_code, refused.code) == (403, "plan_upgrade_required")


def buy_twenty_dollars(page: Page) -> None:
    """The fee and the total stand there before anything is paid."""
    page.goto("/overview/")
    page.get_by_role("link", name="Buy credits").first.click()
    for credit, quote in (("30", ("$30.00", "$7.50", "$37.50")), ("20", ("$20.00", "$5.00", "$25.00"))):
        page.get_by_label("Another amount").fill(credit)
        for part, amount in zip(("credit", "fee", "total"), quote, strict=True):
            expect(page.locator(f"#buy-{part}")).to_have_text(amount)
    expect(page.get_by_text("Fee (25 %)")).to_be_visible()
    page.get_by_role("button", name="Continue to payment").click()
    page.wait_for_url("**/billing/sandbox/**")
    expect(page.get_by_role("main")).to_contain_text("no money is taken")
    page.get_by_role("button", name="Pay $25.00").click()
    expect(page.get_by_text("$20.00 of credit is yours")).to_be_visible()
    the_balance_is(page, 20 * 10**9)


def the_balance_is(page: Page, nanousd: int) -> None:
    """On the overview, on the page of money, and at the top of both."""
    for address, region in (("/overview/", "Available credit"), ("/billing/", None)):
        page.goto(address)
        place = page.get_by_role("region", name=region) if region else page.locator(".card").first
        expect(place.locator(".figure-value")).to_have_text(usd(nanousd))
        expect(page.locator(".credit strong")).to_have_text(usd(nanousd))


def the_usage_page_shows(page: Page, calls: Calls, books: dict[str, int]) -> None:
    """The same calls in figures, in a painted chart, in the chart's table, by model and by key."""
    page.goto("/usage/")
    expect(page.locator("#total-charged")).to_have_text(usd(books["charged"]))
    expect(page.locator("#total-requests")).to_have_text(number(calls.requests.total()))
    expect(page.locator("#total-input")).to_have_text(number(books["input"]))
    expect(page.locator("#total-output")).to_have_text(number(books["output"]))
    expect(page.get_by_text("1 refused, 0 failed, 0 interrupted")).to_be_visible()
    the_chart_totals(page, usd(books["charged"]))
    by_model = page.get_by_role("region", name="Totals by model").get_by_role("row")
    for model, requests in calls.requests.items():
        expect(by_model.filter(has_text=model).get_by_role("cell").first).to_have_text(number(requests))

    page.get_by_label("Stacked by").select_option("key")
    by_key = page.get_by_role("region", name="Totals by key").get_by_role("row")
    first, second = (
        by_key.filter(has_text=f"{name} program").get_by_role("cell") for name in ("First", "Second")
    )
    expect(first.first).to_have_text(number(calls.requests.total() - 1))
    expect(first.last).to_have_text(usd(books["charged"]))
    expect(second.first).to_have_text("1")

    page.get_by_label("Measure").select_option("tokens")
    expect(page.get_by_role("heading", name="Tokens by key")).to_be_visible()
    the_chart_totals(page, number(books["input"] + books["output"]))


def the_chart_totals(page: Page, total: str) -> None:
    chart = page.locator("#report [data-usage-chart]")
    expect(chart.locator("canvas")).to_be_visible()
    assert chart.locator("canvas").evaluate(_PAINTED_PIXELS) > 500
    chart.locator("summary").click()
    expect(chart.locator("tfoot td").last).to_have_text(total)


def the_books(instance: Instance, calls: Calls, secret: str) -> dict[str, int]:
    """What was used by the usage records, which wallet, ledger and the gateway's answers agree with."""
    done = instance.manage("shell", "-v", "0", "-c", _SUMS, check=True)
    books: dict[str, int] = json.loads(done.stdout)
    assert books["charged"] == calls.charged_nanousd
    credit: Any = calls.client(secret).get("/credits", cast_to=object)
    assert Decimal(credit["data"]["total_usage"]) * 10**9 == books["charged"]
    assert Decimal(credit["data"]["balance"]) * 10**9 == 20 * 10**9 - books["charged"]
    assert Decimal(credit["data"]["held"]) == 0
    audit = instance.manage("audit_ledger")
    assert audit.returncode == 0, audit.stdout
    return books


def rotate(page: Page, secret: str) -> str:
    """A new secret for the same key; going back from its page does not show it again."""
    page.goto("/keys/")
    page.get_by_role("link", name="First program").click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("button", name="Rotate").click()
    new_secret = page.locator("#secret").inner_text()
    assert new_secret != secret
    page.get_by_role("link", name="I have stored it").click()
    expect(page.get_by_role("heading", name="First program", level=1)).to_be_visible()
    travel(page.go_back)
    assert new_secret not in content(page)
    return new_secret


def revoke(page: Page) -> None:
    page.goto("/keys/")
    page.get_by_role("link", name="First program").click()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke for good").click()
    expect(page.get_by_text("This key was revoked on")).to_be_visible()


# --- Looking -----------------------------------------------------------------------------------------------


def copied(page: Page, button: Locator) -> str:
    """What is in the clipboard after the button."""
    page.evaluate("navigator.clipboard.writeText('')")
    button.click()
    expect(button).to_contain_text("Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def content(page: Page) -> str:
    """What the page holds; a page that is about to give way to another cannot be read, and the other one is."""
    while True:
        try:
            return page.content()
        except Error as error:
            assert "navigating" in error.message  # noqa: PT017 - mostly there is no error


def travel(step: Callable[[], object]) -> None:
    """Back or forward. In the place of an answer to a POST, Chromium offers to send the form again: an error here."""
    try:
        step()
    except Error as error:
        assert "ERR_CACHE_MISS" in error.message  # noqa: PT017 - most steps end without an error


def refusal(calls: Calls, secret: str, model: str = BASIC) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as raised:
        calls.chat(secret, model)
    return raised.value
