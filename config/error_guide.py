"""What the gateway may refuse, as /docs/ explains it: in the order in which a request meets the checks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explained:
    """One code of the contract: the HTTP status it comes with, when it comes, and what to do about it."""

    status: int
    code: str
    meaning: str
    unblocks: str


_AFTER_A_FAILURE = "Try again. A stream that broke is charged for what came of it."
EXPLAINED = (
    Explained(
        401,
        "missing_api_key",
        "The request carries no key.",
        "Send it as Authorization: Bearer, or x-api-key.",
    ),
    Explained(
        401,
        "invalid_api_key",
        "The key is unknown or not written correctly.",
        "Copy it again from where you stored it, or create a new one.",
    ),
    Explained(
        401,
        "revoked_api_key",
        "The key was revoked, or this secret of it was rotated away.",
        "Use the key's current secret, or create a new key.",
    ),
    Explained(
        401, "expired_api_key", "The key's time is over.", "Move its expiry on its page, or create a new key."
    ),
    Explained(
        400,
        "api_key_in_query",
        "The key is in the address, where logs keep it.",
        "Rotate the key, and send it in a header.",
    ),
    Explained(403, "account_suspended", "The operator has suspended the account.", "Ask the operator."),
    Explained(403, "key_disabled", "Somebody paused the key.", "Enable it on its page."),
    Explained(
        403,
        "ip_not_allowed",
        "The key may not be used from this network.",
        "Add the network on the key's page.",
    ),
    Explained(
        403, "endpoint_not_allowed", "The key may not call this endpoint.", "Allow it on the key's page."
    ),
    Explained(403, "model_not_allowed", "The key may not call this model.", "Allow it on the key's page."),
    Explained(
        403,
        "plan_upgrade_required",
        "The model is premium, and the basic plan has basic models only.",
        "Buy credits: the first top-up opens every model.",
    ),
    Explained(
        404, "model_not_found", "There is no such model.", "Take a name from Models, or from GET /v1/models."
    ),
    Explained(404, "unknown_url", "There is nothing at this address.", "Check the base URL: it ends in /v1."),
    Explained(
        405, "method_not_allowed", "The address takes another method.", "Use the one in the Allow header."
    ),
    Explained(
        408, "request_timeout", "The request took too long to arrive.", "Send it faster, or make it smaller."
    ),
    Explained(
        400,
        "malformed_request",
        "It is not HTTP, or two programs could read it differently.",
        "Use a current client; the message says what is wrong.",
    ),
    Explained(400, "upgrade_not_supported", "Only HTTP/1.1 is spoken.", "Send it without an Upgrade header."),
    Explained(431, "headers_too_large", "Address and headers are over 64 KiB.", "Send less."),
    Explained(
        415, "unsupported_media_type", "The body is compressed, or not in UTF-8.", "Send it as plain JSON."
    ),
    Explained(400, "invalid_json", "The body is not one JSON object.", "Correct it; the message says where."),
    Explained(
        400,
        "invalid_value",
        "A value has the wrong type or size, or reaches what only the operator may: the message says which.",
        "Correct the parameter named in param.",
    ),
    Explained(
        400, "input_too_long", "More characters than the plan takes.", "Shorten the input, or buy credits."
    ),
    Explained(
        400,
        "context_length_exceeded",
        "Input and output exceed the model's context.",
        "Shorten the input or lower max_tokens, or take a model with a larger context.",
    ),
    Explained(
        422,
        "idempotency_mismatch",
        "This Idempotency-Key came with another request within 24 hours.",
        "Use a new one for each new request.",
    ),
    Explained(
        409,
        "idempotency_in_progress",
        "The first request with this Idempotency-Key is still running.",
        "Wait as long as retry-after says; SDKs do so by themselves.",
    ),
    Explained(
        409,
        "idempotency_answer_gone",
        "It was answered and charged once, and the answer is no longer kept.",
        "Look at its receipt; to ask anew, use a new Idempotency-Key.",
    ),
    Explained(
        413,
        "request_too_large",
        "The body is larger than the gateway takes.",
        "Make it smaller, or have the operator raise GATEWAY_MAX_BODY_BYTES.",
    ),
    Explained(
        402,
        "insufficient_credits",
        "The request may cost more than the account has available.",
        "Lower max_tokens to the number in the message, or buy credits.",
    ),
    Explained(
        402,
        "key_limit_reached",
        "The key has spent its own limit.",
        "Raise the limit on the key's page, or wait for its next period.",
    ),
    Explained(
        402,
        "budget_reached",
        "The account, or the key's environment, has spent its budget.",
        "Raise the budget on the Budgets page, or wait for its next period.",
    ),
    Explained(
        429,
        "rate_limit_exceeded",
        "More requests or tokens a minute than the key may use.",
        "Wait as long as retry-after says; SDKs do so by themselves. If the request alone is over it: make it smaller.",
    ),
    Explained(
        429,
        "daily_allowance_exhausted",
        "The day's free allowance is used up, and there are no credits.",
        "Wait until 00:00 UTC, or buy credits.",
    ),
    Explained(
        502,
        "upstream_error",
        "The provider failed.",
        _AFTER_A_FAILURE,
    ),
    Explained(
        504,
        "upstream_timeout",
        "The provider took too long.",
        _AFTER_A_FAILURE,
    ),
    Explained(
        503,
        "temporarily_unavailable",
        "A part of Tollgate, or every upstream of the model, is down or left alone for a while after failures.",
        "Try again as retry-after says. A stream that had begun is charged for what came of it.",
    ),
)
