"""Who calls: from a secret to everything that the gateway needs to judge a request."""

import datetime as dt
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from django.views.decorators.debug import sensitive_variables

from keys import secrets
from keys.models import KeySecret


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that exists, its key, its account and the account's plan. Nothing is judged yet.

    A limit is the tighter one of the key's and the plan's; None means no limit. Empty sets allow everything.
    """

    key_id: int
    account_id: int
    secret_id: int
    key_name: str
    environment: str
    key_status: str
    account_status: str
    secret_retires_at: dt.datetime | None
    expires_at: dt.datetime | None
    key_version: int
    account_version: int
    plan_slug: str
    plan_name: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    # Which of the minute's limits, `requests` and `tokens`, are the plan's: to raise the key's own is no help there.
    limited_by_plan: frozenset[str]
    requests_per_day: int
    tokens_per_day: int
    max_input_characters: int | None
    premium_models: bool
    spends_credits: bool
    allowed_models: frozenset[str]
    allowed_endpoints: frozenset[str]
    allowed_networks: tuple[IPv4Network | IPv6Network, ...]

    @property
    def minute_limits(self) -> tuple[int | None, int | None]:
        """Requests and tokens a minute."""
        return self.requests_per_minute, self.tokens_per_minute


@sensitive_variables("secret")
def find(*, secret: str) -> Credential | None:
    """The credential behind a secret, also a revoked, expired or retired one; None for an unknown secret.

    A malformed secret costs no query, any other exactly one.
    """
    if not secrets.is_well_formed(secret):
        return None
    found = (
        KeySecret.objects.select_related("key__account__plan")
        .filter(digest__in=[digest for _version, digest in secrets.digests(secret)])
        .first()
    )
    return None if found is None else _credential(found)


def _credential(found: KeySecret) -> Credential:
    key = found.key
    account = key.account
    plan = account.plan
    return Credential(
        key_id=key.pk,
        account_id=account.pk,
        secret_id=found.pk,
        key_name=key.name,
        environment=key.environment,
        key_status=key.status,
        account_status=account.status,
        secret_retires_at=found.retires_at,
        expires_at=key.expires_at,
        key_version=key.policy_version,
        account_version=account.policy_version,
        plan_slug=plan.slug,
        plan_name=plan.name,
        requests_per_minute=_tighter(key.requests_per_minute, plan.requests_per_minute),
        tokens_per_minute=_tighter(key.tokens_per_minute, plan.tokens_per_minute),
        limited_by_plan=frozenset(
            what
            for what, own, of_plan in (
                ("requests", key.requests_per_minute, plan.requests_per_minute),
                ("tokens", key.tokens_per_minute, plan.tokens_per_minute),
            )
            if of_plan is not None and _tighter(own, of_plan) == of_plan
        ),
        requests_per_day=plan.requests_per_day,
        tokens_per_day=plan.tokens_per_day,
        max_input_characters=plan.max_input_characters,
        premium_models=plan.premium_models,
        spends_credits=plan.spends_credits,
        allowed_models=frozenset(key.allowed_models),
        allowed_endpoints=frozenset(key.allowed_endpoints),
        allowed_networks=tuple(ip_network(network) for network in key.allowed_networks),
    )


def _tighter(own: int | None, of_plan: int | None) -> int | None:
    limits = [limit for limit in (own, of_plan) if limit is not None]
    return min(limits, default=None)
