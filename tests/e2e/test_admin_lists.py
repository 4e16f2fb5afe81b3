"""The operator's lists of money on a laptop: everything in sight, with the filters beside it."""

from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.e2e.furnishing import OPERATOR, Furniture
from tests.e2e.looking import sign_in

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("instance")]

_LAPTOP = {"width": 1280, "height": 800}


@pytest.mark.parametrize(
    "model",
    [
        "topup",
        "refund",
        "dispute",
        "wallet",
        "promotionalcredit",
        "autotopup",
        "unmatchedpayment",
        "ledgertransaction",
        "ledgeraccount",
        "budget",
    ],
)
def test_a_list_of_money_shows_all_its_columns(
    model: str, browser: Browser, browser_context_args: dict[str, Any], furniture: Furniture
) -> None:
    context = browser.new_context(**{**browser_context_args, "viewport": _LAPTOP})
    page = context.new_page()
    sign_in(page, OPERATOR)
    page.goto(f"/admin/billing/{model}/")
    room, needed = page.locator("#changelist .results").evaluate(
        "(box) => [box.clientWidth, box.scrollWidth]"
    )
    context.close()
    assert needed <= room
