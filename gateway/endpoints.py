"""What each endpoint asks of an upstream: the protocol it must speak, and the kind of model it is for."""

from collections.abc import Mapping
from dataclasses import dataclass

from catalog.models import Model, Protocol
from catalog.serving import Servable, Target


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One POST address under /v1/."""

    path: str
    protocol: str
    kind: str
    # The endpoint that a key's policy names, where it is another one: who may call that may call this.
    allowed_with: str = ""

    def targets(self, model: Servable) -> tuple[Target, ...]:
        """The model's targets that can answer here, by position; none if the endpoint is not for its kind."""
        if model.kind != self.kind:
            return ()
        targets = [target for target in model.targets if self.protocol in target.protocols]
        return model.targets if len(targets) == len(model.targets) else tuple(targets)


ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("chat/completions", Protocol.OPENAI_CHAT.value, Model.Kind.CHAT.value),
        Endpoint("completions", Protocol.OPENAI_CHAT.value, Model.Kind.CHAT.value),
        Endpoint("embeddings", Protocol.OPENAI_CHAT.value, Model.Kind.EMBEDDING.value),
        Endpoint("responses", Protocol.OPENAI_RESPONSES.value, Model.Kind.CHAT.value),
        Endpoint("messages", Protocol.ANTHROPIC_MESSAGES.value, Model.Kind.CHAT.value),
        Endpoint(
            "messages/count_tokens", Protocol.ANTHROPIC_MESSAGES.value, Model.Kind.CHAT.value, "messages"
        ),
    )
}


def served_at(model: Servable) -> list[str]:
    """The endpoints at which the model can be called, as policies name them."""
    return [
        path for path, endpoint in ENDPOINTS.items() if not endpoint.allowed_with and endpoint.targets(model)
    ]


def named_by_policy(path: str) -> str:
    """What the policy of a key calls this endpoint."""
    endpoint = ENDPOINTS.get(path)
    return (endpoint.allowed_with if endpoint else "") or path
