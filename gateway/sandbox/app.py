"""An upstream to play with: `uvicorn gateway.sandbox.app:app` speaks OpenAI's protocol over a real socket.

It serves every model when no provider key is set, and it is what tests and benchmarks call. It keeps nothing, knows no
Django, and does as a request's `sandbox` object says: see `gateway.sandbox.controls.Controls`.
"""

from typing import TYPE_CHECKING, Any

import orjson

from gateway.sandbox import answers, faults
from gateway.sandbox.controls import BadRequest, Controls, read_controls

if TYPE_CHECKING:
    from gateway.asgi import Receive, Scope, Send

_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_DONE = b"data: [DONE]\n\n"
_MODELS = orjson.dumps(
    {
        "object": "list",
        "data": [{"id": "sandbox", "object": "model", "created": 1_700_000_000, "owned_by": "tollgate"}],
    }
)
# Where a stream breaks when `after_chunks` does not say: late enough to have said something.
_BREAKS_AFTER = 3


async def app(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        connection = faults.Connection(receive, send)
        try:
            await _route(scope["method"], scope["path"], connection)
        except faults.ClientLeft:
            pass
        except BadRequest as bad:
            await connection.answer(400, _error(str(bad), param=bad.param))
        finally:
            connection.finish()


async def _live(receive: "Receive", send: "Send") -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _route(method: str, path: str, connection: faults.Connection) -> None:
    if method == "POST" and path == "/v1/chat/completions":
        await _complete(connection, is_chat=True)
    elif method == "POST" and path == "/v1/completions":
        await _complete(connection, is_chat=False)
    elif method == "POST" and path == "/v1/embeddings":
        await _embed(connection)
    elif method == "GET" and path == "/v1/models":
        await connection.answer(200, _MODELS)
    elif method == "GET" and path == "/health":
        await connection.answer(200, b'{"status":"ok"}')
    else:
        await connection.answer(404, _error(f"The sandbox has no {method} {path}.", code="not_found"))


async def _complete(connection: faults.Connection, *, is_chat: bool) -> None:
    body = _parse(await connection.body())
    controls = read_controls(body)
    prompt = answers.read_prompt(body, is_chat=is_chat)
    if controls.delay_ms:
        await connection.pause(controls.delay_s)
    if await _failed_before_answering(connection, controls):
        return
    answer = answers.compose(prompt, controls)
    if prompt.is_streamed:
        await _stream(connection, prompt, answer, controls)
    else:
        await _answer_whole(connection, answers.document(prompt, answer), controls)


async def _embed(connection: faults.Connection) -> None:
    body = _parse(await connection.body())
    controls = read_controls(body)
    if controls.delay_ms:
        await connection.pause(controls.delay_s)
    if not await _failed_before_answering(connection, controls):
        await _answer_whole(connection, answers.embeddings(body, controls), controls)


async def _failed_before_answering(connection: faults.Connection, controls: Controls) -> bool:
    if controls.fault == "connection":
        await connection.cut()
    elif controls.fault == "hang" and controls.after_chunks is None:
        await connection.hang()
    elif controls.fault == "status":
        wait = controls.retry_after
        headers = () if wait is None else ((b"retry-after", str(wait).encode()),)
        said = "The sandbox failed, as it was asked to."
        await connection.answer(controls.fail_status, _error(said, code=controls.fail_code), headers=headers)
    else:
        return False
    return True


async def _answer_whole(connection: faults.Connection, document: bytes, controls: Controls) -> None:
    """A JSON answer; `mid_stream` and `hang` stop in the middle of it."""
    if controls.fault == "garbage":
        await connection.answer(200, faults.GARBAGE)
    elif controls.fault == "sse_error":
        await connection.answer(200, faults.ERROR_EVENT.removeprefix(b"data: ").strip())
    elif controls.fault in ("mid_stream", "hang"):
        length = (b"content-length", str(len(document)).encode())
        await connection.start(200, [(b"content-type", b"application/json"), length])
        await connection.write(document[: len(document) // 2])
        await (connection.cut() if controls.fault == "mid_stream" else connection.hang())
    else:
        await connection.answer(200, document)


async def _stream(
    connection: faults.Connection, prompt: answers.Prompt, answer: answers.Answer, controls: Controls
) -> None:
    breaks_after = None
    if controls.fault:
        breaks_after = _BREAKS_AFTER if controls.after_chunks is None else controls.after_chunks
    await connection.start(200, _STREAM_HEADERS)
    unsent: list[bytes] = []
    for number, event in enumerate(answers.events(prompt, answer)):
        if number == breaks_after:
            break
        if controls.chunk_delay_s is None and controls.split_bytes is None:
            unsent.append(event)
        else:
            await _write_paced(connection, event, controls)
    if breaks_after is not None:
        await _break(connection, b"".join(unsent), controls.fault)
    unsent.append(_DONE)
    await connection.write(b"".join(unsent), more=False)


async def _write_paced(connection: faults.Connection, event: bytes, controls: Controls) -> None:
    size = controls.split_bytes or len(event)
    for start in range(0, len(event), size):
        await connection.write(event[start : start + size])
        await connection.pause(controls.chunk_delay_s or 0)


async def _break(connection: faults.Connection, unsent: bytes, fault: str) -> None:
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
        await connection.write(faults.ERROR_EVENT, more=False)
        raise faults.ClientLeft


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def _error(message: str, *, code: str | None = None, param: str | None = None) -> bytes:
    kind = "invalid_request_error" if code is None else "api_error"
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})
