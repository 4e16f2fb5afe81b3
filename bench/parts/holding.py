"""Streams held open at once, by a process of its own: `python -m bench.parts.holding`, its orders as JSON on stdin.

It writes a line when every stream has begun, and one more when all have ended.
"""

import asyncio
import json
import sys
import time

import uvloop

from bench.parts.calling import Caller, Seen, connect
from bench.parts.load import Orders, requests_of

# Open streams are held here, not the rush to open them.
_AT_ONCE = 50
_PATIENCE_S = 180.0


async def hold(orders: Orders) -> None:
    """Open `concurrency` streams and read them to their ends.

    Raises:
        RuntimeError: one was refused or broke, or they did not begin in time.
    """
    seen, requests = Seen(), requests_of(orders)
    host, port = orders.address
    callers = await connect(host, port, orders.concurrency, seen, Caller.leave)
    async with asyncio.timeout(_PATIENCE_S):
        for group in (callers[start : start + _AT_ONCE] for start in range(0, len(callers), _AT_ONCE)):
            for caller in group:
                caller.send(next(requests), counted_from=time.perf_counter())
            await asyncio.gather(*(caller.begun for caller in group))
        print("open", flush=True)
        await asyncio.gather(*(caller.closed for caller in callers))
    if seen.errors or len(seen.latencies_s) != orders.concurrency:
        raise RuntimeError(f"not every stream was served: {seen.errors}")
    print("over", flush=True)


if __name__ == "__main__":
    uvloop.run(hold(Orders(**json.loads(sys.stdin.readline()))))
