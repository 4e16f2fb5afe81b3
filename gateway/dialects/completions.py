"""`POST /v1/completions`: the older text completion, in chunks like those of the chat."""

from typing import Any, ClassVar

from catalog.serving import Target
from gateway import fields, weighing
from gateway.dialects.chat import SAMPLING, Chat, with_usage_in_stream
from gateway.dialects.shared_account import NO_STORE, SERVICE_TIER
from gateway.dialects.texts import read_texts
from gateway.errors import invalid_value
from gateway.parsing import Asked, boolean, models_of
from gateway.strict_json import parse_object, written

_MAX_PROMPTS = 128
# OpenAI's own default. Without it a prompt would go on for as long as the wallet affords.
_DEFAULT_OUTPUT_TOKENS = 16

_FIELDS: dict[str, fields.Judge] = {
    **SAMPLING,
    "best_of": fields.whole_number(1, 20),
    "echo": fields.TRUE_OR_FALSE,
    "logprobs": fields.whole_number(0, 5),
    "suffix": fields.A_STRING,
    # Not for clients of a shared account:
    "service_tier": SERVICE_TIER,
    "store": NO_STORE,
}


class Completions(Chat):
    endpoint = "completions"
    input_field = "prompt"
    limit_fields: ClassVar[tuple[str, ...]] = ("max_tokens",)

    def parse(self, body: bytes) -> Asked:
        document = parse_object(body)
        texts = read_texts(document.get("prompt"), "prompt", most=_MAX_PROMPTS)
        fields.judge(document, _FIELDS)
        number, best_of = document.get("n") or 1, document.get("best_of") or 1
        if document.get("best_of") is not None and best_of < number:
            raise invalid_value("best_of", "it must not be less than `n`")
        is_streamed = boolean(document, "stream")
        others = {name: value for name, value in document.items() if name != "prompt"}
        return Asked(
            document=document,
            models=models_of(document),
            is_streamed=is_streamed,
            wants_usage=self.wants_usage(document, is_streamed=is_streamed),
            output_limit=document.get("max_tokens") or _DEFAULT_OUTPUT_TOKENS,
            # Each of the prompts is completed so often, and all of it is billed.
            choices=max(number, best_of) * texts.number,
            most_input_tokens=len(body),
            input_characters=texts.characters + weighing.characters_of(others),
            longest_characters=texts.longest_characters,
            inputs=texts.number,
        )

    def outgoing(self, asked: Asked, target: Target, output_limit: int) -> bytes:
        document: dict[str, Any] = {**asked.document, "model": target.model, "max_tokens": output_limit}
        document.pop("models", None)
        return written(with_usage_in_stream(document) if asked.is_streamed else document)
