"""`POST /v1/embeddings`: vectors of texts. There is no stream and no output token: the input is what costs."""

from typing import Any

from catalog.serving import Target
from gateway import fields, metering, weighing
from gateway.dialects.dialect import Answered, BrokenAnswerError, Dialect
from gateway.dialects.texts import read_texts
from gateway.parsing import Asked, models_of
from gateway.strict_json import parse_object, written

MAX_INPUTS = 2048

_FIELDS: dict[str, fields.Judge] = {
    "dimensions": fields.whole_number(1, 1_000_000),
    "encoding_format": fields.A_STRING,
    "user": fields.A_STRING,
    "stream": fields.only_false("embeddings have no stream"),
}


class Embeddings(Dialect):
    endpoint = "embeddings"
    input_field = "input"
    limit_fields = ("max_tokens",)  # named by no refusal: there is no output

    def parse(self, body: bytes) -> Asked:
        document = parse_object(body)
        texts = read_texts(document.get("input"), "input", most=MAX_INPUTS)
        fields.judge(document, _FIELDS)
        others = {name: value for name, value in document.items() if name != "input"}
        return Asked(
            document=document,
            models=models_of(document),
            is_streamed=False,
            wants_usage=False,
            output_limit=None,
            choices=1,
            most_input_tokens=len(body),
            input_characters=texts.characters + weighing.characters_of(others),
            longest_characters=texts.longest_characters,
            inputs=texts.number,
        )

    def outgoing(self, asked: Asked, target: Target, output_limit: int) -> bytes:
        document: dict[str, Any] = {**asked.document, "model": target.model}
        document.pop("models", None)
        return written(document)

    def read(self, document: dict[str, Any]) -> Answered:
        if not isinstance(document.get("data"), list):
            raise BrokenAnswerError("its answer has no embeddings")
        usage = document.get("usage")
        if not isinstance(usage, dict):
            return Answered(None, 0, "")
        counted = metering.reported(input_tokens=usage.get("prompt_tokens"), output_tokens=0)
        return Answered(counted, 0, "")
