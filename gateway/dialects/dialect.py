"""What a dialect is: how one endpoint writes a request, an answer, a stream, its usage and a refusal.

The stages know none of this: they walk a request with its dialect in hand. Nothing is translated: an upstream
gets what the client wrote, in the client's own protocol.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from catalog.serving import Target
from gateway.errors import Refusal
from gateway.metering import Usage, estimated
from gateway.parsing import Asked


class BrokenAnswerError(Exception):
    """What the upstream sends is not an answer, or says itself that it failed; the message says why."""


@dataclass(slots=True)  # not frozen: made for every request, and a frozen one costs twice as much
class Answered:
    """What a whole answer says of itself. `usage` is None where it reports none that makes sense."""

    usage: Usage | None
    produced_characters: int
    finish_reason: str


class Meter(ABC):
    """What one stream has brought so far. It is fed whole events, and withholds the last until they are paid for."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.usage: Usage | None = None
        self.characters = 0
        self.finish_reason = ""
        # Nothing more is read after this.
        self.is_done = False

    def take_plain(self, events: bytes) -> tuple[bytes, bytes]:
        """The events at the beginning that need no closer look, all taken at once: what the client gets, what is left.

        Most of a stream is text and nothing else, and to take it event by event is most of the work.
        """
        return b"", events

    @abstractmethod
    def take(self, event: bytes) -> bytes:
        """What the client gets of this event now; empty where nothing. Raises BrokenAnswerError."""

    @abstractmethod
    def ending(self, usage: Usage, *, cost_usd: str) -> bytes:
        """The last events, for when the usage is committed."""

    @abstractmethod
    def error(self, refusal: Refusal, request_id: uuid.UUID) -> bytes:
        """The event that ends a stream which broke."""

    @property
    def is_complete(self) -> bool:
        """Whether the upstream may close now: then the answer has been said, if not its last word."""
        return self.is_done or bool(self.finish_reason)

    def measured(self) -> Usage:
        """What the upstream reports, or what it must have used by what came."""
        return self.usage or estimated(
            input_tokens=self.asked.input_tokens, produced_characters=self.characters
        )


class Dialect(ABC):
    """One endpoint's way of writing. What it asks of an upstream and of a model is in `gateway.endpoints`."""

    endpoint: ClassVar[str]  # the path after /v1/, also at the upstream
    input_field: ClassVar[str]  # what a refusal of the input's size names
    limit_fields: ClassVar[tuple[str, ...]]  # what one of the output's size may name, the usual one first
    id_header: ClassVar[bytes] = b""  # where its SDKs look for the request's id, if not in `x-request-id`

    @abstractmethod
    def parse(self, body: bytes) -> Asked:
        """Read a body strictly. Raises Refusal."""

    @abstractmethod
    def outgoing(self, asked: Asked, target: Target, output_limit: int) -> bytes:
        """The body as the upstream gets it: its own name of the model, the admitted output limit, usage reported."""

    @abstractmethod
    def read(self, document: dict[str, Any]) -> Answered:
        """What a whole answer says. Raises BrokenAnswerError."""

    def limit_field(self, asked: Asked) -> str:
        """What limits the output: as the request names it, if it does."""
        named = (name for name in self.limit_fields if asked.document.get(name) is not None)
        return next(named, self.limit_fields[0])

    def meter(self, asked: Asked) -> Meter:
        """A meter for a stream that is about to come."""
        raise TypeError(f"{self.endpoint} has no streams")

    def upstream_headers(self, target: Target, client: Mapping[bytes, bytes]) -> dict[str, str]:
        """What goes upstream. Nothing of the client's own headers does: no key, no cookie, no address."""
        return {"authorization": f"Bearer {target.api_key}", "content-type": "application/json"}

    def refusal(self, refusal: Refusal, request_id: uuid.UUID) -> dict[str, Any]:
        """A refusal as this dialect writes it: OpenAI's error object."""
        return refusal.as_json()


def decoded(data: bytes) -> dict[str, Any]:
    """The data of one event of a stream. Raises BrokenAnswerError where it is no object."""
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BrokenAnswerError("it sent a chunk that is not JSON") from None
    if not isinstance(chunk, dict):
        raise BrokenAnswerError("it sent a chunk that is not an object")
    return chunk


def encoded(chunk: dict[str, Any]) -> bytes:
    """A chunk that was decoded, as JSON again. Raises BrokenAnswerError where it is nested too deeply for that."""
    try:
        return orjson.dumps(chunk)
    except orjson.JSONEncodeError:
        raise BrokenAnswerError("it sent a chunk that is nested too deeply") from None


def repeatable(chunk: dict[str, Any]) -> dict[str, Any]:
    """A chunk that the end of the stream is made of: that it can be, is known before. Raises BrokenAnswerError."""
    encoded(chunk)
    return chunk
