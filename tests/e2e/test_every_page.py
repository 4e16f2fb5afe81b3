"""Every page of the console, as strangers, newcomers, owners and operators see it: light and dark, wide and narrow."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from playwright.sync_api import Browser

from tests.e2e.furnishing import NEWCOMER, OPERATOR, OWNER, Furniture
from tests.e2e.looking import WIDTHS, Watched, sign_in

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("instance")]

_MISSING = "/there/is/no/such/page/"
_NO_ACCOUNT = "/overview/?to=an+operator+without+an+account"
_STATUSES = {_MISSING: 404, _NO_ACCOUNT: 403}
_STRANGER = [
    "/",
    "/docs/",
    "/models/",
    "/outbox/",
    "/accounts/signup/",
    "/accounts/login/",
    "/accounts/password/reset/",
    "/accounts/inactive/",
    "/admin/login/",
    _MISSING,
]
# Where nothing has happened yet, each page says what to do next.
_NEWCOMER = [
    "/overview/",
    "/keys/",
    "/keys/create/",
    "/usage/",
    "/usage/requests/",
    "/usage/alerts/",
    "/billing/",
    "/billing/budgets/",
    "/billing/ledger/",
    "/billing/payments/",
    "/billing/buy/",
    "/billing/methods/",
    "/billing/alerts/",
    "/billing/auto-top-up/",
    "/models/?q=nothing+is+called+this",
    "/settings/",
    "/accounts/2fa/",
    _MISSING,
]
_OWNER = [
    "/overview/",
    "/keys/",
    "/keys/?q=nothing+is+called+this",
    "/keys/{key}/",
    "/keys/{long_key}/",
    "/keys/{revoked_key}/",
    "/keys/{expired_key}/",
    "/keys/{disabled_key}/",
    "/keys/{long_key}/policy/",
    "/keys/{key}/rotate/",
    "/keys/{key}/disable/",
    "/keys/{key}/revoke/",
    "/billing/",
    "/billing/ledger/",
    "/billing/ledger/?kind=refund",
    "/billing/payments/",
    "/billing/buy/?credit=20",
    "/billing/details/",
    "/billing/methods/",
    "/billing/methods/{method}/remove/",
    "/billing/alerts/",
    "/billing/auto-top-up/",
    "/billing/sandbox/{pending_reference}/",
    "/billing/topups/{paid}/",
    "/billing/topups/{canceled}/",
    "/billing/topups/{pending}/return/",
    "/billing/topups/{pending}/return/?look=15&left=1",
    "/billing/budgets/",
    "/billing/budgets/add/?scope=key:{key}",
    "/billing/budgets/{budget}/",
    "/billing/budgets/{budget}/remove/",
    "/usage/",
    "/usage/?range=30d&by=key&metric=tokens",
    "/usage/?range=today&by=outcome&metric=requests",
    "/usage/?range=custom&start=2026-02-01&end=2026-01-01",
    "/usage/requests/",
    "/usage/requests/{completed}/",
    "/usage/requests/{refused}/",
    "/usage/alerts/",
    "/models/",
    "/settings/",
    "/settings/audit/",
    "/docs/",
    "/accounts/logout/",
    "/accounts/email/",
    "/accounts/password/change/",
    "/accounts/reauthenticate/",
    "/accounts/2fa/",
    "/accounts/2fa/totp/activate/",
]
_OPERATOR = [
    "/admin/",
    "/admin/accounts/account/",
    "/admin/accounts/account/{account}/change/",
    "/admin/accounts/plan/",
    "/admin/catalog/model/",
    "/admin/keys/apikey/",
    "/admin/keys/apikey/{key}/change/",
    "/admin/billing/topup/",
    "/admin/billing/topup/{paid}/change/",
    "/admin/billing/topup/{paid}/refund/",
    "/admin/billing/refund/",
    "/admin/billing/dispute/",
    "/admin/billing/wallet/{account}/take/",
    "/admin/billing/promotionalcredit/",
    "/admin/billing/autotopup/",
    "/admin/billing/unmatchedpayment/",
    "/admin/billing/unmatchedpayment/{unmatched}/resolve/",
    "/admin/billing/webhookevent/",
    "/admin/billing/webhookevent/{event}/change/",
    "/admin/billing/webhookevent/{event}/close/",
    "/admin/billing/paymentreport/",
    "/admin/billing/budget/",
    "/admin/billing/gatewayprocess/",
    "/admin/billing/ledgertransaction/",
    "/admin/billing/ledgertransaction/accounts/{account}/",
    "/admin/billing/ledgertransaction/revenue/",
    "/admin/billing/ledgertransaction/losses/",
    "/admin/billing/wallet/{account}/grant/",
    "/admin/usage/usagerecord/",
    "/admin/usage/anomaly/",
    _NO_ACCOUNT,
]
# Addresses that show no page of their own to anybody who types them, and why.
_NO_PAGES = {
    "billing:ledger_file": "a file",
    "billing:make_default_method": "takes a POST",
    "billing:pay": "opens a payment company's page",
    "billing:receipt_file": "a file",
    "billing:auto_topup_off": "takes a POST",
    "billing:sandbox_cancel": "takes a POST",
    "billing:sandbox_pay": "takes a POST",
    "billing:webhook": "for machines",
    "first_call": "a fragment of the overview",
    "keys:enable": "takes a POST",
    "live": "for machines",
    "ready": "for machines",
    "usage:acknowledge": "takes a POST",
    "usage:export": "a file",
    # allauth's, each in the middle of something that tests/accounts walks through
    "account_complete_password_reset": "after the code of a reset",
    "account_confirm_login_code": "no sign-in by code is offered",
    "account_confirm_password_reset_code": "after a request to reset",
    "account_email_verification_sent": "after a sign-up",
    "account_password_reset_completed": "after a reset",
    "account_set_password": "for users without a password",
    "mfa_authenticate": "after a sign-in with a second factor",
    "mfa_deactivate_totp": "with a second factor",
    "mfa_download_recovery_codes": "a file",
    "mfa_generate_recovery_codes": "with a second factor",
    "mfa_reauthenticate": "with a second factor",
    "mfa_view_recovery_codes": "with a second factor",
}


@pytest.mark.parametrize(
    ("email", "paths"),
    [("", _STRANGER), (NEWCOMER, _NEWCOMER), (OWNER, _OWNER), (OPERATOR, _OPERATOR)],
    ids=["stranger", "newcomer", "owner", "operator"],
)
def test_every_page_is_sound_in_light_and_dark_wide_and_narrow(
    email: str,
    paths: list[str],
    browser: Browser,
    browser_context_args: dict[str, Any],
    furniture: Furniture,
) -> None:
    context = browser.new_context(**browser_context_args)
    page = context.new_page()
    if email:
        sign_in(page, email)
    watched = Watched(page)
    problems = []
    for path in _addresses(paths, furniture):
        watched.open(path, status=_STATUSES.get(path, 200))
        found = watched.problems()
        for width in WIDTHS:
            found += [
                problem
                for scheme in ("light", "dark")
                for problem in watched.look(width=width, scheme=scheme)
            ]
        problems += [f"{path} {problem}" for problem in found + watched.problems()]
    context.close()
    assert not problems, "\n".join(problems)


def test_no_page_of_the_console_is_left_out(furniture: Furniture) -> None:
    looked_at = {
        get_resolver().resolve(path.partition("?")[0]).view_name
        for path in _addresses(_STRANGER[:-1] + _NEWCOMER[:-1] + _OWNER, furniture)
    }

    assert set(_names(get_resolver())) - looked_at - set(_NO_PAGES) == set()


def _addresses(paths: list[str], furniture: Furniture) -> list[str]:
    return [path.format(**{name: getattr(furniture, name) for name in furniture.__slots__}) for path in paths]


def _names(resolver: URLResolver, space: str = "") -> Iterator[str]:
    """The names of every address but those of the admin, which Django makes."""
    for entry in resolver.url_patterns:
        if isinstance(entry, URLPattern):
            yield f"{space}{entry.name}"
        elif entry.namespace != "admin":
            yield from _names(entry, f"{entry.namespace}:" if entry.namespace else space)
