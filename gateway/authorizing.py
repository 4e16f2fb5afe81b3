"""Stage 3: may this key call this endpoint, this model, with an input of this size. All from memory."""

import datetime as dt
import ipaddress

from accounts.models import Account
from catalog.serving import Catalogue, Servable
from gateway.asgi import Exchange
from gateway.dialects.dialect import Dialect
from gateway.endpoints import named_by_policy
from gateway.errors import (
    Refusal,
    account_suspended,
    context_length_exceeded,
    endpoint_not_allowed,
    expired_api_key,
    input_too_long,
    invalid_value,
    ip_not_allowed,
    key_disabled,
    model_not_allowed,
    model_not_found,
    plan_upgrade_required,
    revoked_api_key,
    unable,
)
from gateway.fields import OutputLimitRefusal
from gateway.parsing import Asked
from keys.authenticating import Credential
from keys.models import ApiKey


def judge_caller(credential: Credential, *, exchange: Exchange, endpoint: str, at: dt.datetime) -> None:
    """Raises Refusal where the key, its account, its network or the endpoint stands in the way."""
    retired = credential.secret_retires_at is not None and credential.secret_retires_at <= at
    if credential.key_status == ApiKey.Status.REVOKED or retired:
        raise revoked_api_key()
    if credential.expires_at is not None and credential.expires_at <= at:
        raise expired_api_key(credential.expires_at)
    if credential.account_status == Account.Status.SUSPENDED:
        raise account_suspended()
    if credential.key_status == ApiKey.Status.DISABLED:
        raise key_disabled()
    if credential.allowed_networks:
        address = exchange.ip_address
        if address is None or not any(
            ipaddress.ip_address(address) in net for net in credential.allowed_networks
        ):
            raise ip_not_allowed(address)
    if endpoint and credential.allowed_endpoints:
        named = named_by_policy(endpoint)
        if named not in credential.allowed_endpoints:
            raise endpoint_not_allowed(named)


def may_call(credential: Credential, model: Servable) -> bool:
    """Whether the key's policy and the account's plan include the model."""
    is_allowed = not credential.allowed_models or model.slug in credential.allowed_models
    return is_allowed and (credential.premium_models or not model.is_premium)


def judge_model(credential: Credential, *, name: str, param: str, catalogue: Catalogue) -> Servable:
    """The model of this name. Raises Refusal if there is none, or the key or the plan does not include it.

    `param` is the field that names it. Policies know models by their slugs, whatever name was asked.
    """
    model = catalogue.get(name)
    if model is None:
        raise model_not_found(name, param=param)
    if credential.allowed_models and model.slug not in credential.allowed_models:
        raise model_not_allowed(model.slug, param=param)
    if model.is_premium and not credential.premium_models:
        raise plan_upgrade_required(model.slug, credential, param=param)
    return model


def output_limit_refusal(
    credential: Credential, refusal: OutputLimitRefusal, *, catalogue: Catalogue
) -> Refusal:
    """The refusal of an output limit that cannot be, with the limit of the model itself where that is known."""
    model = catalogue.get(refusal.model) if isinstance(refusal.model, str) else None
    if (
        model is None
        or refusal.param is None
        or not model.max_output_tokens
        or not may_call(credential, model)
    ):
        return refusal
    most = f"{model.max_output_tokens:,}, the most that {model.slug} writes"
    return invalid_value(refusal.param, f"it must be a whole number from 1 to {most}")


def judge_length(credential: Credential, *, dialect: Dialect, asked: Asked) -> None:
    """Raises Refusal where the plan takes fewer characters, whichever model would read them."""
    limit = credential.max_input_characters
    if limit is not None and asked.input_characters > limit:
        raise input_too_long(
            credential, characters=asked.input_characters, limit=limit, param=dialect.input_field
        )


def judge_abilities(*, dialect: Dialect, asked: Asked, model: Servable) -> None:
    """Raises Refusal where the operator says that the model cannot do what the request needs."""
    if asked.uses_tools and not model.supports_tools:
        param = "tools" if asked.document.get("tools") else "functions"
        raise unable(model.slug, "call tools", fact="supports_tools", param=param)
    if asked.has_images and not model.supports_images:
        raise unable(model.slug, "read images", fact="supports_images", param=dialect.input_field)


def judge_size(*, dialect: Dialect, asked: Asked, model: Servable) -> None:
    """Raises Refusal where the model's context or its output is exceeded."""
    if asked.output_limit is not None and asked.output_limit > model.max_output_tokens:
        raise invalid_value(
            dialect.limit_field(asked), f"{model.slug} writes at most {model.max_output_tokens:,} tokens"
        )
    if asked.is_count:
        return  # to learn whether it fits is what it asks for
    tokens = asked.context_tokens + (asked.output_limit or min(model.max_output_tokens, 1))
    if tokens > model.context_window:
        raise context_length_exceeded(
            tokens=tokens, window=model.context_window, model=model.slug, param=dialect.input_field
        )
