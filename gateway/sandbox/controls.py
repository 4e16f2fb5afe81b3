"""What a request may ask of the sandbox: the object `sandbox` in its body (`extra_body` of the OpenAI SDKs)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FAULTS = ("connection", "mid_stream", "sse_error", "hang", "garbage")
_MOST_TOKENS = 10_000_000
_MOST_MILLISECONDS = 3_600_000
_LOWEST_STATUS, _HIGHEST_STATUS = 400, 599


class BadRequest(ValueError):
    """The body is not what the protocol or the controls allow; `param` names the field, as OpenAI's errors do."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Controls:
    """The controls of one request. Every one is optional.

    `output_tokens`: exactly this many, whatever `max_tokens` says (so that an upstream can exceed its limit).
    `text`: the literal answer, for example emoji. Its words are its tokens.
    `delay_ms`: before the first byte. `chunk_delay_ms`: after each event of a stream; 0 still makes each event
    a write of its own, where otherwise the whole answer goes out in as few as possible.
    `cached_tokens`, `cache_write_tokens`: this much of the input is reported as read from a cache and written to one.
    `reasoning_tokens`: reported as such; it is part of the output, and is not written.
    `report_usage: false`: say nothing of tokens. `usage`: report this object instead, as it is.
    `fail`: `{"status": 503, "code": "overloaded", "retry_after": 1}`, or one of FAULTS: `connection` closes
    the socket without an answer, `mid_stream` after `after_chunks` events, `sse_error` sends an error event there,
    `garbage` sends what is no JSON there, `hang` goes silent there (without `after_chunks`: before the first byte).
    `split_bytes`: write a stream in pieces of this many bytes, so that events split inside UTF-8 characters.
    """

    output_tokens: int | None = None
    text: str | None = None
    delay_ms: int = 0
    chunk_delay_ms: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    report_usage: bool = True
    usage: Mapping[str, Any] | None = None
    fault: str = ""
    fail_status: int = 0
    fail_code: str = ""
    retry_after: int | None = None
    after_chunks: int | None = None
    split_bytes: int | None = None

    @property
    def delay_s(self) -> float:
        return self.delay_ms / 1000

    @property
    def chunk_delay_s(self) -> float | None:
        return None if self.chunk_delay_ms is None else self.chunk_delay_ms / 1000


_DEFAULTS = Controls()


def read_controls(body: Mapping[str, Any]) -> Controls:
    """The controls in a request's body. Raises BadRequest on an unknown one, a wrong type or an absurd number."""
    found = body.get("sandbox")
    if found is None:
        return _DEFAULTS
    if not isinstance(found, dict):
        raise BadRequest("sandbox must be an object", param="sandbox")
    known: dict[str, Any] = {}
    for name, value in found.items():
        if name == "fail":
            known |= _read_failure(value)
        elif name in _READERS:
            known[name] = _READERS[name](name, value)
        else:
            raise BadRequest(f"the sandbox has no control {name!r}", param=f"sandbox.{name}")
    return Controls(**known)


def _read_failure(value: object) -> dict[str, Any]:
    if isinstance(value, str) and value in FAULTS:
        return {"fault": value}
    if isinstance(value, dict):
        status = value.get("status", 500)
        retry_after = value.get("retry_after")
        if (
            isinstance(status, int)
            and _LOWEST_STATUS <= status <= _HIGHEST_STATUS
            and _is_count_or_none(retry_after)
        ):
            code = str(value.get("code", "sandbox_failure"))
            return {"fault": "status", "fail_status": status, "fail_code": code, "retry_after": retry_after}
    raise BadRequest(
        f"fail must be one of {', '.join(FAULTS)}, or an object with a status from 400 to 599",
        param="sandbox.fail",
    )


def _is_count_or_none(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _count(name: str, value: object, *, most: int = _MOST_TOKENS, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"{name} must be a whole number from {least} to {most}", param=f"sandbox.{name}")
    return value


def _milliseconds(name: str, value: object) -> int:
    return _count(name, value, most=_MOST_MILLISECONDS)


def _positive(name: str, value: object) -> int:
    return _count(name, value, least=1)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string", param=f"sandbox.{name}")
    return value


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false", param=f"sandbox.{name}")
    return value


def _object(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object", param=f"sandbox.{name}")
    return value


_READERS: dict[str, Callable[[str, object], Any]] = {
    "output_tokens": _count,
    "text": _text,
    "delay_ms": _milliseconds,
    "chunk_delay_ms": _milliseconds,
    "cached_tokens": _count,
    "cache_write_tokens": _count,
    "reasoning_tokens": _count,
    "report_usage": _boolean,
    "usage": _object,
    "after_chunks": _count,
    "split_bytes": _positive,
}
