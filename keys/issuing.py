"""A new key, and the secret that is shown once."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Unpack

from django.core.exceptions import ValidationError
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from accounts import auditing
from accounts.models import Account, User
from keys import policies, secrets
from keys.models import ApiKey, KeySecret
from keys.policies import Policy


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key and its secret, in the one moment when the secret is known."""

    key: ApiKey
    secret: str = field(repr=False)


@sensitive_variables("secret", "issued")
def issue(
    *,
    account: Account,
    actor: User | None,
    name: str,
    at: dt.datetime,
    environment: str = ApiKey.Environment.DEVELOPMENT,
    **policy: Unpack[Policy],
) -> IssuedKey:
    """Make a key of the account. The secret in the answer is stored nowhere: who loses it rotates the key.

    Production keys begin with `tg_live_`, others with `tg_test_`. ValidationError with messages by field.
    """
    key = ApiKey(account=account, environment=environment, created_at=at)
    policies.apply(key=key, policy={**policy, "name": name})
    if key.expires_at is not None and key.expires_at <= at:
        raise ValidationError({"expires_at": ["This moment has passed. Choose a later one."]})
    with transaction.atomic():
        key.save(force_insert=True)
        issued = IssuedKey(key=key, secret=add_secret(key=key, at=at))
        auditing.record(
            account=account,
            actor=actor,
            action="key.issued",
            subject_type="key",
            subject_id=key.pk,
            name=key.name,
            environment=key.environment,
            start=secrets.start_of(issued.secret),
            end=secrets.end_of(issued.secret),
        )
    return issued


@sensitive_variables("secret")
def add_secret(*, key: ApiKey, at: dt.datetime) -> str:
    """Give the key a new current secret. The one before must have been retired in the same transaction."""
    secret = secrets.generate(live=key.environment == ApiKey.Environment.PRODUCTION)
    version, digest = secrets.digests(secret)[0]
    KeySecret.objects.create(
        key=key,
        digest=digest,
        pepper_version=version,
        start=secrets.start_of(secret),
        end=secrets.end_of(secret),
        created_at=at,
    )
    return secret
