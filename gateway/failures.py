"""What the gateway answers where neither the request nor its sender is at fault: an upstream failed, or a part of ours.

Each says whether anything was charged, and when to come again.
"""

import math

from gateway.errors import API, INVALID_REQUEST, Refusal, retry_after


def upstream_error(model: str, why: str) -> Refusal:
    return Refusal(
        502,
        API,
        "upstream_error",
        f"The upstream of {model} failed: {why}. Nothing was charged; try again.",
        reason=why,
    )


def upstream_timeout(model: str, why: str) -> Refusal:
    return Refusal(
        504,
        API,
        "upstream_timeout",
        f"The upstream of {model} took too long: {why}. Nothing was charged; try again.",
        reason=why,
    )


def upstream_refused(status: int, *, message: str, code: str | None, param: str | None) -> Refusal:
    """The upstream found fault with the request itself: its own words are the most useful ones."""
    return Refusal(status, INVALID_REQUEST, code or "invalid_value", message, param=param)


def temporarily_unavailable(what: str) -> Refusal:
    return Refusal(
        503,
        API,
        "temporarily_unavailable",
        f"{what} is unavailable just now. Nothing was sent upstream and nothing was charged; try again in a second.",
        headers=retry_after(1000),
    )


def shutting_down() -> Refusal:
    """The time that a process which was told to stop gives its running requests is over."""
    return Refusal(
        503,
        API,
        "temporarily_unavailable",
        "This gateway is shutting down. Nothing was charged; try again.",
        headers=retry_after(1000),
    )


def no_upstream(model: str, *, param: str = "model") -> Refusal:
    return Refusal(
        503,
        API,
        "temporarily_unavailable",
        f"{model} is in the catalogue, but no upstream for it is configured here. Ask the operator, or use another "
        "model: GET /v1/models lists those that are served.",
        param=param,
        headers=retry_after(60_000),
    )


def upstreams_failing(model: str, wait_s: float) -> Refusal:
    """Every upstream has failed so often that it is left alone for a while."""
    return Refusal(
        503,
        API,
        "temporarily_unavailable",
        f"The upstreams of {model} have been failing, so nothing was sent to them and nothing was charged. They are "
        f"tried again in {math.ceil(wait_s)} seconds; another model may be served.",
        headers=retry_after(wait_s * 1000),
    )
