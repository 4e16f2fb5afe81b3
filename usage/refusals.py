"""What unblocks a refused or failed request, as its receipt says it beside the gateway's own message."""

from dataclasses import dataclass

from usage.models import UsageRecord


@dataclass(frozen=True, slots=True)
class WayOut:
    """What to do, and the name of the page on which to do it ("" where it is the client's own matter)."""

    text: str
    url_name: str = ""
    action: str = ""


_BUY = ("billing:buy", "Buy credits")
_KEYS = ("key_list", "Your keys")
_BUDGETS = ("budget_list", "Budgets")
_MODELS = ("catalog:model_list", "Models")
_WAYS_OUT = {
    "insufficient_credits": WayOut("Buy credits, or ask for fewer output tokens.", *_BUY),
    "daily_allowance_exhausted": WayOut("Wait until 00:00 UTC, or buy credits to go on at once.", *_BUY),
    "plan_upgrade_required": WayOut("Models of the basic tier need no other plan.", *_BUY),
    "key_limit_reached": WayOut("Raise the budget of the key, or wait for its next period.", *_BUDGETS),
    "budget_reached": WayOut("Raise the budget, or wait for its next period.", *_BUDGETS),
    "rate_limit_exceeded": WayOut(
        "Send fewer or smaller requests in a minute. A limit of the key is raised on its page, one of the plan by a "
        "larger plan.",
        *_KEYS,
    ),
    "model_not_allowed": WayOut("Allow the model in the policy of the key.", *_KEYS),
    "endpoint_not_allowed": WayOut("Allow the endpoint in the policy of the key.", *_KEYS),
    "ip_not_allowed": WayOut("Allow the network in the policy of the key, if the address is yours.", *_KEYS),
    "key_disabled": WayOut("Enable the key, if it was not disabled for a reason.", *_KEYS),
    "revoked_api_key": WayOut(
        "If the key was rotated, use its current secret. A revoked key stays revoked: create a new one.",
        *_KEYS,
    ),
    "expired_api_key": WayOut("Move its expiry, or create a new key.", *_KEYS),
    "account_suspended": WayOut("Ask the operator of this installation."),
    "api_key_in_query": WayOut("Rotate the key: whoever reads a log of addresses has it.", *_KEYS),
    "model_not_found": WayOut("Look up the exact name of the model.", *_MODELS),
    "input_too_long": WayOut("Send less, or move to a plan that takes more.", *_BUY),
    "context_length_exceeded": WayOut("Send less, or use a model with a larger context.", *_MODELS),
    "request_too_large": WayOut(
        "Make the request smaller, or ask the operator to raise GATEWAY_MAX_BODY_BYTES."
    ),
    "request_timeout": WayOut("Send it again, over a faster connection or with a smaller body."),
}
# What failed on our side or the upstream's: the advice depends on how far the answer had come.
_FAILURES = {
    "upstream_error": "Try again; the SDKs do so by themselves.",
    "upstream_timeout": "Try again, or ask for a shorter answer.",
    "temporarily_unavailable": "Try again as retry-after says.",
}
_NOT_REPEATED = "SDKs do not repeat a stream that has begun: send the request again if you need its end."
_OK = 200


def way_out(*, record: UsageRecord) -> WayOut | None:
    """For a refused or failed request; None where its own message says it all, or there was no error."""
    again = _FAILURES.get(record.error_code)
    if again is None:
        return _WAYS_OUT.get(record.error_code)
    if record.charged_nanousd:
        paid = "What had come of the answer was charged."
    elif record.allowance_tokens:
        paid = "What had come of the answer was drawn from the daily allowance."
    else:
        paid = "Nothing was charged."
    # Nothing is charged for a failure unless a stream had begun, and then the client had got its 200.
    return WayOut(f"{paid} {_NOT_REPEATED if record.status == _OK else again}")
