"""The request that every benchmark sends."""

from typing import Any

# A premium model: every request holds credit, settles, and writes its usage.
MODEL = "glm-5"
STREAMED_CHUNKS = 50


def body(*, is_streamed: bool, chunks: int = STREAMED_CHUNKS, chunk_delay_ms: int = 0) -> dict[str, Any]:
    """A chat completion: plain, or a stream of so many chunks with a wait after each."""
    messages = [{"role": "user", "content": "Say something about toll gates, in a sentence or two."}]
    asked: dict[str, Any] = {"model": MODEL, "messages": messages, "max_tokens": 100}
    if is_streamed:
        # A delay of zero makes every chunk a write of its own, as a model's are.
        asked |= {"stream": True, "sandbox": {"output_tokens": chunks, "chunk_delay_ms": chunk_delay_ms}}
    return asked
