"""System checks that refuse an unsafe combination of settings before it serves anyone."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's

from billing import topping_up
from billing.providers import offering
from catalog.addresses import parse_networks

_PEPPER_BYTES = 32
_MOST_NOTICE_DAYS = 3650
# An e-mail that is owed is leased for five minutes; who still waits then would see it sent by another.
_LONGEST_MAIL_TIMEOUT_S = 300


@register(Tags.security)
def peppers_are_well_formed(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Each pepper reads `version:base64`, with a positive version used once and 32 bytes."""
    versions: set[int] = set()
    for entry in settings.KEY_PEPPERS:
        version, _colon, encoded = entry.partition(":")
        try:
            pepper = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            pepper = b""
        if not version.isdigit() or int(version) in versions or len(pepper) != _PEPPER_BYTES:
            return [
                Error(
                    "KEY_PEPPERS is malformed.",
                    hint="Give `1:<base64 of 32 random bytes>`, and a new version beside the old ones to rotate it.",
                    id="tollgate.E001",
                )
            ]
        versions.add(int(version))
    if not versions:
        return [Error("KEY_PEPPERS is empty: no key could be issued or recognised.", id="tollgate.E001")]
    return []


@register(Tags.security)
def sandbox_payments_are_meant(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """The sandbox gives credit for nothing; outside embedded mode somebody must have said that this is wanted."""
    if "sandbox" in settings.TOPUP_PROVIDERS and not settings.SANDBOX_PAYMENTS_ALLOWED:
        return [
            Error(
                "TOPUP_PROVIDERS offers the sandbox, which takes no money for the credit it gives.",
                hint="Remove it, or set SANDBOX_PAYMENTS_ALLOWED=1 where nothing of value can be called.",
                id="tollgate.E002",
            )
        ]
    return []


@register(Tags.security)
def host_is_named(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """A wildcard host lets a forged Host header into the links of our e-mails."""
    if not settings.EMBEDDED and "*" in settings.ALLOWED_HOSTS and not settings.PUBLIC_URL:
        return [
            Error(
                "ALLOWED_HOSTS is '*' and PUBLIC_URL is empty: links in e-mails could be forged.",
                hint="Name the hosts, or set PUBLIC_URL.",
                id="tollgate.E003",
            )
        ]
    return []


@register(Tags.security)
def private_networks_are_networks(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """What is no network would be found only when the first upstream is called."""
    try:
        parse_networks(tuple(settings.UPSTREAM_PRIVATE_NETWORKS))
    except ValueError as error:
        return [
            Error(
                f"UPSTREAM_PRIVATE_NETWORKS is malformed: {error}.",
                hint="Give CIDR blocks with commas, such as 10.1.0.0/16,fd00:1::/32.",
                id="tollgate.E004",
            )
        ]
    return []


@register(Tags.security)
def providers_are_known(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """A slip of the pen would otherwise be found by the first who wants to buy."""
    known = offering.known()
    problems: list[CheckMessage] = []
    for slug in offering.unknown():
        meant = [name for name in known if name == slug.strip().lower()]
        problems.append(
            Error(
                f"TOPUP_PROVIDERS names {slug!r}, which is no payment provider.",
                hint=f"Write {meant[0]}." if meant else f"Known are: {', '.join(known)}.",
                id="tollgate.E009",
            )
        )
    return problems


@register(Tags.security)
def amounts_make_sense(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """What can be bought at once, and how long before credit expires its account is told."""
    problems: list[CheckMessage] = []
    if problem := topping_up.limits_problem():
        problems.append(Error(problem, id="tollgate.E010"))
    if not 0 <= settings.PROMOTION_NOTICE_DAYS <= _MOST_NOTICE_DAYS:
        problems.append(
            Error(
                "PROMOTION_NOTICE_DAYS is not a number of days.",
                hint=f"Give a whole number from 0 (nobody is told) to {_MOST_NOTICE_DAYS}.",
                id="tollgate.E011",
            )
        )
    return problems


@register(Tags.security)
def refunds_and_receipts_make_sense(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """More than a fee cannot be given back, and a font that is missing would be missed when a receipt is mailed."""
    problems: list[CheckMessage] = []
    share = settings.REFUND_FEE_SHARE
    if not share.is_finite() or not 0 <= share <= 1:
        problems.append(
            Error("REFUND_FEE_SHARE is not a number from 0 to 1.", hint="0.5 is half.", id="tollgate.E007")
        )
    if missing := [path for path in settings.RECEIPT_FONTS if not Path(path).is_file()]:
        problems.append(
            Error(f"RECEIPT_FONTS names no file: {', '.join(missing)}.", id="tollgate.E008"),
        )
    return problems


@register(Tags.security)
def mail_servers_are_waited_for_and_not_for_ever(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> list[CheckMessage]:
    """Without a wait nothing is ever sent; with one without an end, who waits for it does nothing else."""
    if not 0 < settings.EMAIL_TIMEOUT < _LONGEST_MAIL_TIMEOUT_S:
        return [
            Error(
                f"EMAIL_TIMEOUT_S, or ?timeout= of EMAIL_URL, is {settings.EMAIL_TIMEOUT:g}.",
                hint=f"Give seconds: more than 0, and less than {_LONGEST_MAIL_TIMEOUT_S}. 10 will do.",
                id="tollgate.E012",
            )
        ]
    return []


@register(Tags.security)
def stripe_is_set_up(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Whoever offers Stripe can ask it for payments, and believes its webhooks; the key goes to nobody else."""
    problems: list[CheckMessage] = []
    key, secrets, address = (
        settings.STRIPE_SECRET_KEY,
        settings.STRIPE_WEBHOOK_SECRETS,
        settings.STRIPE_API_URL,
    )
    if "stripe" in settings.TOPUP_PROVIDERS:
        if not key.startswith(("sk_", "rk_")):
            problems.append(
                Error(
                    f"TOPUP_PROVIDERS offers stripe, and STRIPE_SECRET_KEY is {'no such key' if key else 'empty'}.",
                    hint="Give the secret key of your Stripe account: sk_live_…, or sk_test_… to try it out.",
                    id="tollgate.E005",
                )
            )
        if not secrets or not all(secret.startswith("whsec_") for secret in secrets):
            problems.append(
                Error(
                    "TOPUP_PROVIDERS offers stripe, and STRIPE_WEBHOOK_SECRETS is"
                    f" {'malformed' if secrets else 'empty'}.",
                    hint="Give the signing secret of the webhook endpoint that you made at Stripe: whsec_….",
                    id="tollgate.E005",
                )
            )
    if address and not address.startswith("https://") and not settings.EMBEDDED:
        problems.append(
            Error(
                "STRIPE_API_URL is not https: the secret key would travel in the open.",
                hint="Remove it, unless a proxy of your own stands before Stripe.",
                id="tollgate.E006",
            )
        )
    return problems


@register(Tags.security)
def somebody_hears_of_money(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Payments that fit nothing, disputes with a deadline and refunds that are stuck need a person."""
    takes_money = any(provider != "sandbox" for provider in settings.TOPUP_PROVIDERS)
    if takes_money and not settings.OPERATOR_EMAILS and not settings.EMBEDDED:
        return [
            Warning(
                "TOPUP_PROVIDERS takes money, and OPERATOR_EMAILS is empty: nobody hears of disputes, of payments that"
                " fit no top-up, and of wrong books.",
                hint="Give the e-mail addresses of those who look after money, with commas between them.",
                id="tollgate.W001",
            )
        ]
    return []
