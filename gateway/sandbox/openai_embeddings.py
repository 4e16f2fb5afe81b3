"""The sandbox as OpenAI's embeddings: a vector for each input, like none of a real model."""

import base64
import hashlib
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.sandbox.answers import Answer, Prompt, count_tokens, read_model
from gateway.sandbox.controls import BadRequest
from gateway.sandbox.protocol import Protocol

_DIMENSIONS = 256
_MOST_DIMENSIONS = 4096


class Embeddings(Protocol):
    """The same vectors for the same texts."""

    def read(self, body: Mapping[str, Any]) -> Prompt:
        dimensions = body.get("dimensions", _DIMENSIONS)
        if not isinstance(dimensions, int) or not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise BadRequest(
                f"dimensions must be a whole number from 1 to {_MOST_DIMENSIONS}", param="dimensions"
            )
        return Prompt(
            body=body,
            model=read_model(body),
            input_tokens=count_tokens(body.get("input"), "input"),
            is_streamed=False,
            output_limit=None,
        )

    def document(self, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        inputs = prompt.body["input"]
        is_one = isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], int))
        encode = _as_base64 if prompt.body.get("encoding_format") == "base64" else list
        dimensions = prompt.body.get("dimensions", _DIMENSIONS)
        rows = [inputs] if is_one else inputs
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": encode(_vector(orjson.dumps(row), dimensions)),
            }
            for index, row in enumerate(rows)
        ]
        whole: dict[str, Any] = {"object": "list", "model": prompt.model, "data": data}
        if answer.usage is not None:
            whole["usage"] = answer.usage
        elif answer.reports_usage:
            whole["usage"] = {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens}
        return whole

    def events(self, prompt: Prompt, answer: Answer) -> Iterator[bytes]:
        return iter(())


def _vector(seed: bytes, dimensions: int) -> "array[float]":
    return array("f", ((byte - 127.5) / 127.5 for byte in hashlib.shake_128(seed).digest(dimensions)))


def _as_base64(vector: "array[float]") -> str:
    return base64.b64encode(vector.tobytes()).decode()
