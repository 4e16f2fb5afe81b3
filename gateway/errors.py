"""Every refusal of the gateway's contract, each made in one place with its status, code, message and headers.

Here are those that rest on the request and on who sends it; what is no fault of theirs is in `failures`. A message says
which limit, at which scope, what remains and what unblocks it. None ever repeats a key.
"""

import datetime as dt
import math
from collections.abc import Iterable
from typing import Any

from catalog.money import usd_string
from gateway import shapes
from keys.authenticating import Credential
from keys.secrets import masked
from usage.admission import AllowanceExhausted, BudgetReached, CreditsInsufficient

INVALID_REQUEST = "invalid_request_error"
PERMISSION = "permission_error"
QUOTA = "insufficient_quota"
API = "api_error"

_DO_NOT_RETRY = (b"x-should-retry", b"false")


class Refusal(Exception):
    """An answer other than success, in OpenAI's error shape. `type` is OpenAI's `error.type`.

    `reason` is what the operator is told of an upstream's failure: without what the client should do.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        reason: str = "",
    ) -> None:
        # A client may have put its key anywhere: into a model's name, an address, a field that the upstream quotes.
        message = masked(message)
        super().__init__(message)
        self.status = status
        self.type = type
        self.code = masked(code)
        self.message = message
        self.param = None if param is None else masked(param)
        self.headers = list(headers)
        self.reason = masked(reason) or message

    def as_json(self) -> dict[str, Any]:
        """OpenAI's error object, with all four keys."""
        return shapes.openais(message=self.message, type=self.type, param=self.param, code=self.code)


# --- Who calls ---------------------------------------------------------------------------------------------


def missing_api_key() -> Refusal:
    return Refusal(
        401,
        INVALID_REQUEST,
        "missing_api_key",
        "No API key was sent. Send it as `Authorization: Bearer <key>` or in the `x-api-key` header.",
    )


def invalid_api_key() -> Refusal:
    return Refusal(
        401,
        INVALID_REQUEST,
        "invalid_api_key",
        "This API key is not valid. Copy it again from where you stored it, or create a new one on the Keys page.",
    )


def revoked_api_key() -> Refusal:
    return Refusal(
        401,
        INVALID_REQUEST,
        "revoked_api_key",
        "This API key has been revoked or rotated. Use the key's current secret, or create a new key.",
    )


def expired_api_key(expired_at: dt.datetime) -> Refusal:
    return Refusal(
        401,
        INVALID_REQUEST,
        "expired_api_key",
        f"This API key expired at {_moment(expired_at)}. Move its expiry on the key's page, or create a new key.",
    )


def api_key_in_query() -> Refusal:
    return Refusal(
        400,
        INVALID_REQUEST,
        "api_key_in_query",
        "An API key was sent in the query string, where logs keep it. Rotate it, and send it in a header.",
    )


# --- What it may do ----------------------------------------------------------------------------------------


def account_suspended() -> Refusal:
    return Refusal(
        403,
        PERMISSION,
        "account_suspended",
        "This account is suspended. Ask the operator what is needed to lift it.",
    )


def key_disabled() -> Refusal:
    return Refusal(
        403, PERMISSION, "key_disabled", "This API key is disabled. Enable it on its page to use it again."
    )


def ip_not_allowed(address: str | None) -> Refusal:
    return Refusal(
        403,
        PERMISSION,
        "ip_not_allowed",
        f"This API key may not be used from {address or 'this address'}. Add the network on the key's page.",
    )


def endpoint_not_allowed(endpoint: str) -> Refusal:
    return Refusal(
        403,
        PERMISSION,
        "endpoint_not_allowed",
        f"This API key may not call /v1/{endpoint}. Allow the endpoint on the key's page.",
    )


def model_not_allowed(model: str, *, param: str = "model") -> Refusal:
    return Refusal(
        403,
        PERMISSION,
        "model_not_allowed",
        f"This API key may not call {model}. Allow the model on the key's page.",
        param=param,
    )


def plan_upgrade_required(model: str, credential: Credential, *, param: str = "model") -> Refusal:
    return Refusal(
        403,
        PERMISSION,
        "plan_upgrade_required",
        f"{model} is a premium model, which the {credential.plan_name} plan does not include. "
        + (
            "Ask the operator for a plan that does."
            if credential.spends_credits
            else "Buy credits on the Billing page: the first top-up moves the account to pay-as-you-go."
        ),
        param=param,
    )


# --- What was asked ----------------------------------------------------------------------------------------


def model_not_found(model: str, *, param: str = "model") -> Refusal:
    return Refusal(
        404,
        INVALID_REQUEST,
        "model_not_found",
        f"There is no model {model[:120]!r} here. GET /v1/models lists what this key may call.",
        param=param,
    )


def not_served_here(model: str, *, endpoint: str, served_at: Iterable[str], param: str) -> Refusal:
    """The model is of another kind, or none of its upstreams speaks the protocol. Nothing is translated."""
    others = ", ".join(f"/v1/{other}" for other in served_at)
    where = f"call it at {others}" if others else "it is served at no endpoint just now"
    return invalid_value(param, f"{model} does not answer at /v1/{endpoint}; {where}")


def unable(model: str, does: str, *, fact: str, param: str) -> Refusal:
    return invalid_value(param, f"{model} does not {does}; models that do: GET /v1/models, `{fact}`")


def auto_is_for_chat(*, param: str) -> Refusal:
    """Vectors of two models cannot be compared: whoever asks for some must know whose they are."""
    return invalid_value(param, "`auto` chooses among chat models only; name an embedding model")


def unknown_url(method: str, path: str) -> Refusal:
    hint = ""
    if path.startswith("/v1/v1/"):
        hint = " The address has /v1 twice: the client adds it to a base URL that ends in it already."
    return Refusal(404, INVALID_REQUEST, "unknown_url", f"There is no {method} {path[:200]} here.{hint}")


def lacks_v1(method: str, path: str) -> Refusal:
    """An endpoint of the gateway, called as if it were a page."""
    return Refusal(
        404,
        INVALID_REQUEST,
        "unknown_url",
        f"There is no {method} {path[:200]} here. It is at /v1{path[:200]}: the base URL ends in /v1.",
    )


def method_not_allowed(allowed: str) -> Refusal:
    return Refusal(
        405,
        INVALID_REQUEST,
        "method_not_allowed",
        f"This address takes {allowed} only.",
        headers=[(b"allow", allowed.encode())],
    )


def invalid_json(why: str) -> Refusal:
    return Refusal(400, INVALID_REQUEST, "invalid_json", f"The body is not a valid JSON object: {why}.")


def invalid_value(param: str, why: str) -> Refusal:
    return Refusal(400, INVALID_REQUEST, "invalid_value", f"Invalid value for `{param}`: {why}.", param=param)


def input_too_long(credential: Credential, *, characters: int, limit: int, param: str) -> Refusal:
    # Who spends credits has left the plan that a top-up moves an account from.
    moves = not credential.spends_credits
    larger = "buy credits to move to pay-as-you-go" if moves else "ask the operator for a larger plan"
    return Refusal(
        400,
        INVALID_REQUEST,
        "input_too_long",
        f"The input has {characters:,} characters; the {credential.plan_name} plan takes {limit:,} a "
        f"request. Shorten it, or {larger}.",
        param=param,
    )


def context_length_exceeded(*, tokens: int, window: int, model: str, param: str) -> Refusal:
    return Refusal(
        400,
        INVALID_REQUEST,
        "context_length_exceeded",
        f"The input and the output asked for come to about {tokens:,} tokens; {model} has a context of {window:,}.",
        param=param,
    )


def request_too_large(*, limit_bytes: int, is_page: bool = False) -> Refusal:
    takes, or_else = (
        ("a page", "")
        if is_page
        else ("this gateway", ", or ask the operator to raise GATEWAY_MAX_BODY_BYTES")
    )
    return Refusal(
        413,
        INVALID_REQUEST,
        "request_too_large",
        f"The body is larger than {limit_bytes:,} bytes, the most that {takes} takes. Make it smaller{or_else}.",
        headers=[(b"connection", b"close")],
    )


def unsupported_media(reason: str) -> Refusal:
    return Refusal(
        415,
        INVALID_REQUEST,
        "unsupported_media_type",
        f"The body cannot be read: {reason}.",
        headers=[(b"connection", b"close")],
    )


def request_timed_out(*, timeout_s: float) -> Refusal:
    return Refusal(
        408,
        INVALID_REQUEST,
        "request_timeout",
        f"The body did not arrive within {timeout_s:.0f} seconds. Send it faster, or make it smaller.",
        headers=[(b"connection", b"close")],
    )


# --- What it may spend -------------------------------------------------------------------------------------


def insufficient_credits(facts: CreditsInsufficient, *, limit_field: str) -> Refusal:
    """`limit_field` is what the dialect calls the limit of output tokens."""
    affordable = max(facts.affordable_tokens, 0)
    way_out = f"Ask for at most {limit_field}={affordable}, or buy" if affordable else "Buy"
    held = (
        f" ({usd_string(facts.held_nanousd)} more is held by running requests)" if facts.held_nanousd else ""
    )
    return Refusal(
        402,
        QUOTA,
        "insufficient_credits",
        f"The account has ${usd_string(facts.available_nanousd)} of credit available{held}; this request may cost "
        f"up to ${usd_string(facts.needed_nanousd)}. {way_out} credits on the Billing page.",
        param=limit_field if affordable else None,
        headers=[_DO_NOT_RETRY],
    )


def budget_reached(facts: BudgetReached, *, limit_field: str) -> Refusal:
    """Of the budgets that apply, the one that leaves the request the least."""
    period = {"day": " a day", "week": " a week", "month": " a month"}.get(facts.period, " in total")
    frees = f" It frees at {_moment(facts.resets_at)}." if facts.resets_at else ""
    affordable = max(facts.affordable_tokens, 0)
    smaller = f", or ask for at most {limit_field}={affordable}" if affordable else ""
    if facts.scope.key_id is not None:
        code, limit, page = "key_limit_reached", "This key's own limit", "the limit on the key's page"
    else:
        environment = facts.scope.environment
        of = f"the account's {environment} environment" if environment else "the account"
        code, limit, page = "budget_reached", f"The budget of {of}", "it on the Budgets page"
    return Refusal(
        402,
        QUOTA,
        code,
        f"{limit} is ${usd_string(facts.limit_nanousd)}{period}; ${usd_string(facts.spent_nanousd)} is "
        f"spent and ${usd_string(facts.held_nanousd)} held by running requests.{frees} Raise {page}{smaller}.",
        param=limit_field if affordable else None,
        headers=[_DO_NOT_RETRY],
    )


def daily_allowance_exhausted(
    facts: AllowanceExhausted, *, now: dt.datetime, headers: Iterable[tuple[bytes, bytes]]
) -> Refusal:
    running = f" and {facts.held_tokens:,} more are reserved by running requests" if facts.held_tokens else ""
    wait = retry_after((facts.resets_at - now).total_seconds() * 1000)
    what = (
        f"Too little is left of the account's daily allowance for an input of {facts.input_tokens:,} tokens"
        if facts.would_fit_smaller
        else "The account's daily allowance is used up"
    )
    smaller = "Send a smaller input, or wait: it" if facts.would_fit_smaller else "It"
    return Refusal(
        429,
        QUOTA,
        "daily_allowance_exhausted",
        f"{what}: {facts.tokens:,} of {facts.tokens_limit:,} tokens are used{running}, and "
        f"{facts.requests:,} of {facts.requests_limit:,} requests. {smaller} frees at {_moment(facts.resets_at)}; with "
        "credits from the Billing page you can go on at once.",
        headers=[*headers, *wait, _DO_NOT_RETRY],
    )


def rate_limit_exceeded(
    *,
    what: str,
    limit: int,
    used: int,
    asked: int,
    retry_ms: int,
    headers: Iterable[tuple[bytes, bytes]],
    plan: str = "",
    fitting: str = "",
) -> Refusal:
    """`what` is `requests` or `tokens`; `plan` the plan whose limit it is, where it is not the key's own.

    `fitting` is the output limit with which the request would fit now, if any.
    """
    can_ever = asked <= limit
    counts = f" and this request counts {asked:,}" if what == "tokens" else ""
    wait = (
        f"Wait {retry_ms / 1000:.1f} seconds" if can_ever else "It alone is over the limit: make it smaller"
    )
    smaller = f", ask for at most {fitting}, which would fit now" if fitting else ""
    of_whom = f"The {plan} plan gives each key" if plan else "This key's own limit is"
    way_out = "move the account to a larger plan" if plan else "raise the key's limit"
    return Refusal(
        429,
        what,
        "rate_limit_exceeded",
        f"{of_whom} {limit:,} {what} a minute, and this key has used {used:,}{counts}. {wait}{smaller}, or {way_out}.",
        headers=[*headers, *retry_after(retry_ms), *([] if can_ever else [_DO_NOT_RETRY])],
    )


def retry_after(milliseconds: float) -> list[tuple[bytes, bytes]]:
    """`retry-after` in whole seconds, never too early, and `retry-after-ms`, which OpenAI's SDK reads first."""
    whole = math.ceil(milliseconds)
    return [
        (b"retry-after", str(math.ceil(whole / 1000)).encode()),
        (b"retry-after-ms", str(whole).encode()),
    ]


def _moment(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
