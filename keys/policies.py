"""What a key may do: the rules its policy follows, and a change of it."""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict, Unpack

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts import auditing
from accounts.models import User
from catalog.models import Model
from keys import locking
from keys.models import ApiKey

# What a key can be limited to, as the path after /v1/. The reading endpoints are open to every key.
ENDPOINTS = ("chat/completions", "completions", "embeddings", "responses", "messages")
MAX_NETWORKS = 100

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class Policy(TypedDict, total=False):
    """What can be chosen for a key. Empty lists allow everything; a limit of None is the plan's own."""

    purpose: str
    owner: User | None
    expires_at: dt.datetime | None
    allowed_models: Sequence[str]
    allowed_endpoints: Sequence[str]
    allowed_networks: Sequence[str]
    requests_per_minute: int | None
    tokens_per_minute: int | None


class PolicyChange(Policy, total=False):
    """A policy, and the name, which a new key must have anyway."""

    name: str


def change_policy(*, key: ApiKey, actor: User | None, **policy: Unpack[PolicyChange]) -> ApiKey:
    """Change what is named and leave the rest. The next request of the key is judged by the new policy.

    ValidationError with a message for each field that is wrong; RevokedKeyError for a revoked key.
    """
    with transaction.atomic():
        locked = locking.lock_unrevoked(key=key)
        before = {field: getattr(locked, field) for field in policy}
        apply(key=locked, policy=policy)
        after = {field: getattr(locked, field) for field in policy}
        changed = [field for field in policy if before[field] != after[field]]
        if changed:
            locked.policy_version += 1
            locked.save(update_fields=[*changed, "policy_version"])
            auditing.record(
                account=locked.account_id,
                actor=actor,
                action="key.policy_changed",
                subject_type="key",
                subject_id=locked.pk,
                changes={f: {"before": _as_json(before[f]), "after": _as_json(after[f])} for f in changed},
            )
    key.refresh_from_db()
    return key


def apply(*, key: ApiKey, policy: PolicyChange) -> None:
    """Set the policy on the key, normalised, without saving. ValidationError with messages by field."""
    errors: dict[str, list[str]] = {}
    for field, value in policy.items():
        try:
            setattr(key, field, _normalised(key=key, field=field, value=value))
        except ValidationError as error:
            errors[field] = error.messages
    try:
        key.clean_fields(exclude=["account", "owner", *errors])
    except ValidationError as error:
        errors |= error.message_dict
    if errors:
        raise ValidationError(dict(errors))


def _normalised(*, key: ApiKey, field: str, value: Any) -> Any:
    """The value as the key keeps it. ValidationError where no key may have it."""
    match field:
        case "name" | "purpose":
            return value.strip()
        case "owner":
            return _member(value, account_id=key.account_id)
        case "allowed_models":
            return _known_models(value, kept=frozenset(key.allowed_models))
        case "allowed_endpoints":
            return _known_endpoints(value)
        case "allowed_networks":
            return _networks(value)
        case "requests_per_minute" | "tokens_per_minute" if value is not None and value < 1:
            msg = "A limit is at least 1. Leave it empty for the plan's own."
            raise ValidationError(msg)
    return value


def _member(owner: User | None, *, account_id: int) -> User | None:
    if owner is not None and not owner.memberships.filter(account_id=account_id).exists():
        msg = f"{owner} is not a member of this account."
        raise ValidationError(msg)
    return owner


def _known_models(slugs: Iterable[str], *, kept: frozenset[str]) -> list[str]:
    """The slugs, once each. What the key lists already may stay, though it has left the catalog since."""
    wanted = list(dict.fromkeys(slugs))
    known = kept | set(Model.objects.filter(slug__in=wanted).values_list("slug", flat=True))
    if unknown := [slug for slug in wanted if slug not in known]:
        msg = f"There is no model named {', '.join(unknown)}."
        raise ValidationError(msg)
    return wanted


def _known_endpoints(endpoints: Iterable[str]) -> list[str]:
    wanted = list(dict.fromkeys(endpoints))
    if unknown := [endpoint for endpoint in wanted if endpoint not in ENDPOINTS]:
        msg = f"There is no endpoint named {', '.join(unknown)}. There are {', '.join(ENDPOINTS)}."
        raise ValidationError(msg)
    return wanted


def _networks(networks: Iterable[str]) -> list[str]:
    normalised: dict[str, None] = {}
    wrong: list[str] = []
    for text in networks:
        try:
            normalised[_network(text.strip())] = None
        except ValueError:
            wrong.append(
                f"“{text}” is no network. Write an address as 203.0.113.7, or a block as 203.0.113.0/24."
            )
    if len(normalised) > MAX_NETWORKS:
        wrong.append(f"A key can name {MAX_NETWORKS} networks at most.")
    if wrong:
        raise ValidationError(wrong)
    return list(normalised)


def _network(text: str) -> str:
    """The network in canonical form. IPv4 written as IPv6 becomes IPv4, as a caller's address does."""
    if "%" in text:
        msg = "a zone means nothing outside its own machine"
        raise ValueError(msg)
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return str(ipaddress.ip_network(f"{mapped}/{network.prefixlen - _MAPPED.prefixlen}"))
    return str(network)


def _as_json(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, User) else value
