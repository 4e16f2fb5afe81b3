"""How a refusal is written: OpenAI's error object, or Anthropic's with our `code` and `param` beside its own keys.

Nothing of Django is needed here: the HTTP edge writes refusals too, in front of servers that know none.
"""

from typing import Any

# Anthropic's types of errors by status; the rest of 4xx is the request's fault, the rest of 5xx the API's.
_SERVER_ERROR = 500
_ANTHROPICS_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_MESSAGES = b"/v1/messages"


def openais(*, message: str, type: str, param: str | None, code: str) -> dict[str, Any]:  # noqa: A002
    """OpenAI's error object, with all four keys."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def anthropics(*, status: int, message: str, param: str | None, code: str, request_id: str) -> dict[str, Any]:
    """Anthropic's error object."""
    of_rest = "api_error" if status >= _SERVER_ERROR else "invalid_request_error"
    return {
        "type": "error",
        "error": {
            "type": _ANTHROPICS_TYPES.get(status, of_rest),
            "message": message,
            "code": code,
            "param": param,
        },
        "request_id": request_id,
    }


def is_anthropics(target: bytes) -> bool:
    """Whether the target of a request line, a path or a whole address, is one that Anthropic's clients call."""
    if not target.startswith(b"/"):
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path = target.partition(b"?")[0]
    return path == _MESSAGES or path.startswith(_MESSAGES + b"/")
