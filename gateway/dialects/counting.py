"""`POST /v1/messages/count_tokens`: how many tokens a message has, before it is sent. It costs nothing."""

from typing import Any

from catalog.serving import Target
from gateway import metering, weighing
from gateway.dialects.dialect import Answered, BrokenAnswerError
from gateway.dialects.messages import Messages, read_input
from gateway.errors import invalid_value
from gateway.metering import Usage
from gateway.parsing import Asked, boolean, models_of
from gateway.strict_json import written

_NOTHING = Usage(input_tokens=0, output_tokens=0)


class CountTokens(Messages):
    endpoint = "messages/count_tokens"

    def parse(self, body: bytes) -> Asked:
        document, images = read_input(body)
        if boolean(document, "stream"):
            raise invalid_value("stream", "a count has no stream")
        return Asked(
            document=document,
            models=models_of(document),
            is_streamed=False,
            wants_usage=False,
            output_limit=None,
            choices=1,
            most_input_tokens=0,
            input_characters=weighing.characters_of(document) + sum(image.characters for image in images),
            uses_tools=bool(document.get("tools")),
            has_images=bool(images),
            is_count=True,
        )

    def outgoing(self, asked: Asked, target: Target, output_limit: int) -> bytes:
        document = {**asked.document, "model": target.model}
        document.pop("models", None)
        return written(document)

    def read(self, document: dict[str, Any]) -> Answered:
        if metering.count(document.get("input_tokens")) is None:
            raise BrokenAnswerError("its answer is not a count")
        return Answered(_NOTHING, 0, "")
