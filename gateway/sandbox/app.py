"""An upstream to play with: `uvicorn gateway.sandbox.app:app` speaks five protocols over a real socket.

It serves every model when no provider key is set, and it is what tests and benchmarks call. It keeps nothing, knows no
Django, and does as a request's `sandbox` object says: see `gateway.sandbox.controls.Controls`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from gateway.sandbox import answers, faults
from gateway.sandbox.anthropic_messages import CountTokens, Messages
from gateway.sandbox.controls import BadRequest, Controls, read_controls
from gateway.sandbox.openai_chat import Chat, Completions
from gateway.sandbox.openai_embeddings import Embeddings
from gateway.sandbox.openai_responses import Responses
from gateway.sandbox.protocol import Protocol

if TYPE_CHECKING:
    from gateway.asgi import Receive, Scope, Send

_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_PROTOCOLS: dict[str, Protocol] = {
    "/v1/chat/completions": Chat(),
    "/v1/completions": Completions(),
    "/v1/embeddings": Embeddings(),
    "/v1/responses": Responses(),
    "/v1/messages": Messages(),
    "/v1/messages/count_tokens": CountTokens(),
}
# Who asks for nothing that there is hears it from this one.
_OTHERWISE = _PROTOCOLS["/v1/chat/completions"]
_MODELS = orjson.dumps(
    {
        "object": "list",
        "data": [{"id": "sandbox", "object": "model", "created": 1_700_000_000, "owned_by": "tollgate"}],
    }
)


async def app(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        connection = faults.Connection(receive, send)
        protocol = _PROTOCOLS.get(scope["path"], _OTHERWISE)
        try:
            await _route(scope["method"], scope["path"], connection)
        except faults.ClientLeft:
            pass
        except BadRequest as bad:
            await connection.answer(400, orjson.dumps(protocol.error(str(bad), param=bad.param)))
        finally:
            connection.finish()


async def _live(receive: "Receive", send: "Send") -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _route(method: str, path: str, connection: faults.Connection) -> None:
    if method == "POST" and path in _PROTOCOLS:
        await _complete(connection, _PROTOCOLS[path])
    elif method == "GET" and path == "/v1/models":
        await connection.answer(200, _MODELS)
    elif method == "GET" and path == "/health":
        await connection.answer(200, b'{"status":"ok"}')
    else:
        error = _OTHERWISE.error(f"The sandbox has no {method} {path}.", code="not_found")
        await connection.answer(404, orjson.dumps(error))


async def _complete(connection: faults.Connection, protocol: Protocol) -> None:
    body = _parse(await connection.body())
    controls = read_controls(body)
    prompt = protocol.read(body)
    if controls.delay_ms:
        await connection.pause(controls.delay_s)
    if await _failed_before_answering(connection, protocol, controls):
        return
    answer = answers.compose(prompt, controls)
    if prompt.is_streamed:
        await _stream(connection, protocol, protocol.events(prompt, answer), controls)
    else:
        await _answer_whole(connection, protocol, orjson.dumps(protocol.document(prompt, answer)), controls)


async def _failed_before_answering(
    connection: faults.Connection, protocol: Protocol, controls: Controls
) -> bool:
    if controls.fault == "connection":
        await connection.cut()
    elif controls.fault == "hang" and controls.after_chunks is None:
        await connection.hang()
    elif controls.fault == "status":
        wait = controls.retry_after
        headers = () if wait is None else ((b"retry-after", str(wait).encode()),)
        said = "The sandbox failed, as it was asked to."
        error = orjson.dumps(protocol.error(said, code=controls.fail_code))
        await connection.answer(controls.fail_status, error, headers=headers)
    else:
        return False
    return True


async def _answer_whole(
    connection: faults.Connection, protocol: Protocol, document: bytes, controls: Controls
) -> None:
    """A JSON answer; `mid_stream` and `hang` stop in the middle of it."""
    if controls.fault == "garbage":
        await connection.answer(200, faults.GARBAGE)
    elif controls.fault == "sse_error":
        await connection.answer(200, orjson.dumps(protocol.failure()))
    elif controls.fault in ("mid_stream", "hang"):
        length = (b"content-length", str(len(document)).encode())
        await connection.start(200, [(b"content-type", b"application/json"), length])
        await connection.write(document[: len(document) // 2])
        await (connection.cut() if controls.fault == "mid_stream" else connection.hang())
    else:
        await connection.answer(200, document)


async def _stream(
    connection: faults.Connection, protocol: Protocol, events: Iterable[bytes], controls: Controls
) -> None:
    breaks_after = None
    if controls.fault:
        breaks_after = protocol.breaks_after if controls.after_chunks is None else controls.after_chunks
    await connection.start(200, _STREAM_HEADERS)
    unsent: list[bytes] = []
    for number, event in enumerate(events):
        if number == breaks_after:
            break
        if controls.chunk_delay_s is None and controls.split_bytes is None:
            unsent.append(event)
        else:
            await _write_paced(connection, event, controls)
    if breaks_after is not None:
        await _break(connection, protocol, b"".join(unsent), controls.fault)
    unsent.append(protocol.done)
    await connection.write(b"".join(unsent), more=False)


async def _write_paced(connection: faults.Connection, event: bytes, controls: Controls) -> None:
    size = controls.split_bytes or len(event)
    for start in range(0, len(event), size):
        await connection.write(event[start : start + size])
        await connection.pause(controls.chunk_delay_s or 0)


async def _break(connection: faults.Connection, protocol: Protocol, unsent: bytes, fault: str) -> None:
    """End a stream the wrong way. Returns only where the server itself goes on as if nothing were wrong."""
    if unsent:
        await connection.write(unsent)
    if fault == "mid_stream":
        await connection.cut()
    elif fault == "hang":
        await connection.hang()
    elif fault == "garbage":
        await connection.write(faults.GARBAGE_EVENT)
    else:
        await connection.write(protocol.error_event(), more=False)
        raise faults.ClientLeft


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body
