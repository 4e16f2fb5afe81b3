"""What the sandbox must know of a protocol to speak it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import orjson

from gateway.sandbox.answers import Answer, Prompt

_FAILED = "The sandbox failed in mid-stream, as it was asked to."
_CODE = "sandbox_failure"


class Protocol(ABC):
    """One endpoint, as an upstream speaks it."""

    # Where a stream breaks when `after_chunks` does not say: late enough to have said something.
    breaks_after: ClassVar[int] = 3
    # What follows the last event.
    done: ClassVar[bytes] = b""

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> Prompt:
        """Read the fields that matter. Raises BadRequest where one is missing or of the wrong type."""

    @abstractmethod
    def document(self, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        """The answer as one document."""

    @abstractmethod
    def events(self, prompt: Prompt, answer: Answer) -> Iterator[bytes]:
        """The answer as the events of a stream, a word each."""

    def error(self, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
        """An error; OpenAI's, unless said otherwise. Without a code it is the request's fault."""
        kind = "invalid_request_error" if code is None else "api_error"
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def failure(self) -> dict[str, Any]:
        """An error in place of an answer, with status 200."""
        return self.error(_FAILED, code=_CODE)

    def error_event(self) -> bytes:
        """An error in a stream."""
        return b"data: " + orjson.dumps(self.failure()) + b"\n\n"


def named_event(name: str, data: Mapping[str, Any]) -> bytes:
    """An event of a stream whose events have names and types."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps({"type": name, **data}) + b"\n\n"
