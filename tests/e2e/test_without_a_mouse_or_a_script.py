"""The console by keyboard alone, and in a browser that runs no script."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.furnishing import NEWCOMER, OWNER, Furniture
from tests.e2e.looking import sign_in

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("instance")]

# Outlines, and whatever else a browser or a style sheet may draw around the element that has the focus.
_FOCUS = """
() => {
    const element = document.activeElement, style = getComputedStyle(element);
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    const box = element.getBoundingClientRect();
    return {
        text: (element.innerText || element.value || element.getAttribute("aria-label") || "").trim(),
        isVisible: (ring || style.boxShadow !== "none") && box.width > 0 && box.height > 0 && box.top >= 0,
    };
}
"""


@pytest.mark.parametrize(
    ("email", "path", "action"),
    [
        (NEWCOMER, "/overview/", "Create a key"),
        (NEWCOMER, "/keys/", "Create key"),
        (NEWCOMER, "/keys/create/", "Create key"),
        (NEWCOMER, "/billing/buy/", "Continue to payment"),
        (OWNER, "/keys/{key}/rotate/", "Rotate"),
        (OWNER, "/keys/{key}/revoke/", "Revoke for good"),
        (OWNER, "/billing/sandbox/{pending_reference}/", "Pay $62.50"),
    ],
)
def test_tab_leads_to_the_main_action_and_shows_where_it_is(
    *,
    email: str,
    path: str,
    action: str,
    page: Page,
    signed_in: dict[str, Any],
    furniture: Furniture,
) -> None:
    page.context.add_cookies(signed_in[email])
    page.goto(path.format(key=furniture.key, pending_reference=furniture.pending_reference))
    seen = []

    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(_FOCUS))
        if seen[-1]["text"] == action:
            break

    assert seen[0]["text"] == "Skip to content"
    assert seen[-1]["text"] == action, [stop["text"] for stop in seen]
    assert [stop["text"] for stop in seen if not stop["isVisible"]] == []


def test_a_key_is_made_by_keyboard_alone(page: Page, signed_in: dict[str, Any]) -> None:
    page.context.add_cookies(signed_in[OWNER])
    page.goto("/keys/create/")
    page.get_by_label("Name").focus()
    page.keyboard.type("Made by keyboard")
    page.keyboard.press("Enter")

    expect(page.locator("#secret")).to_have_text(re.compile("^tg_"))
    # The arrow keys are the script's, which has hidden what is not chosen by the time it listens.
    expect(page.locator("#code-python")).to_be_hidden()
    page.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.locator("#code-python")).to_be_visible()
    expect(page.locator("#code-curl")).to_be_hidden()


def test_a_page_that_looks_again_by_itself_keeps_the_focus(
    page: Page, signed_in: dict[str, Any], furniture: Furniture
) -> None:
    page.context.add_cookies(signed_in[OWNER])
    page.goto(f"/billing/topups/{furniture.pending}/return/")
    details = page.get_by_role("link", name="Details of the top-up")
    details.focus()
    # The second answer comes when the first one is on the page.
    with page.expect_response(re.compile(r"look=2")):
        pass
    expect(details).to_be_focused()


def test_without_javascript_one_signs_up_makes_a_key_and_buys_credits(
    browser: Browser, browser_context_args: dict[str, Any]
) -> None:
    context = browser.new_context(**browser_context_args, java_script_enabled=False)
    page = context.new_page()

    page.goto("/accounts/signup/")
    page.get_by_label("E-mail").fill("lynx@example.com")
    page.get_by_label("Password", exact=True).fill("plain text is enough")
    page.get_by_role("main").get_by_role("button", name="Sign up").click()
    outbox = context.new_page()
    outbox.goto("/outbox/")
    mail = outbox.get_by_role("article").filter(has_text="To lynx@example.com").first
    page.get_by_label("Code").fill(mail.locator(".mail-code code").inner_text())
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    page.goto("/keys/create/")
    page.get_by_label("Name").fill("Scriptless")
    page.get_by_role("button", name="Create key").click()
    expect(page.locator("#secret")).to_have_text(re.compile("^tg_"))
    for language in ("curl", "python", "typescript"):
        expect(page.locator(f"#code-{language}")).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)

    page.goto("/billing/buy/")
    page.get_by_label("Another amount").fill("30")
    page.get_by_role("button", name="Continue to payment").click()
    # No script has shown the total while typing, so a page does before anything is agreed.
    expect(page.locator("#buy-total")).to_have_text("$37.50")
    page.get_by_role("button", name=re.compile(r"^Pay \$37\.50 with")).click()
    page.get_by_role("button", name="Pay $37.50", exact=True).click()
    expect(page.get_by_text("$30.00 of credit is yours")).to_be_visible()

    page.goto("/usage/?range=30d")
    page.get_by_label("Measure").select_option("tokens")
    page.get_by_role("button", name="Show").click()
    assert "metric=tokens" in page.url
    context.close()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, browser_context_args: dict[str, Any], furniture: Furniture) -> dict[str, Any]:
    """The cookies of people who have signed in."""
    cookies = {}
    for email in (NEWCOMER, OWNER):
        context = browser.new_context(**browser_context_args)
        sign_in(context.new_page(), email)
        cookies[email] = context.cookies()
        context.close()
    return cookies
