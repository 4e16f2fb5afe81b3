"""`./tollgate bench profile`: where the processor time of one gateway process goes.

The process that is measured is one more web process of the instance, under the same options, started with a sampler in
it. The instance's own has nothing to do meanwhile.
"""

import argparse
import json
import urllib.request
from typing import Any

from bench.parts import page, processes, stages
from bench.parts.installation import installation
from bench.parts.measuring import Cell, Surroundings, Target, measure, pinned
from bench.parts.requesting import STREAMED_CHUNKS, body
from bench.parts.stages import Sampled

_CONCURRENCY = 16
_WARM_UP_S = 2.0

_SECTION = """\
## Where the time goes

{provenance}

Processor time of one gateway process, user and system, at concurrency {concurrency}: {plain.requests:,} plain requests,
while it was {plain.busy:.0%} busy, and {streamed.requests:,} streams of {chunks} chunks, while it was
{streamed.busy:.0%} busy. It was sampled from within; a thread is charged, at the place where it is, with what it has
used since the last sample. Time in the kernel counts for whoever called it.

### By stage

{by_stage}

### By whose code it is

What is written in C counts for whoever calls it; for the event loop, uvloop does.

{by_owner}
"""


def main() -> None:
    """Measure and write the section."""
    options = _options()
    with (
        installation() as own,
        processes.uvicorn(
            "bench.parts.sampling:application",
            environ=own.instance.env(),
            http="config.http_protocol:StrictHttpProtocol",
            health="/health/ready",
        ) as (url, pid),
    ):
        target = Target("Tollgate", url, own.keys, (pid,))
        surroundings = pinned(own.sandbox_pid, [pid])
        others_busy = [processes.busy_share(1.0)]
        plain, streamed = (
            _sample(target, surroundings, is_streamed=is_streamed, seconds=options.seconds)
            for is_streamed in (False, True)
        )
    text = _SECTION.format(
        provenance=page.provenance("profile", others_busy),
        concurrency=_CONCURRENCY,
        chunks=STREAMED_CHUNKS,
        plain=plain,
        streamed=streamed,
        by_stage=stages.by_stage(plain, streamed),
        by_owner=stages.by_owner(plain, streamed),
    )
    page.publish(options, "profile", text)


def _options() -> argparse.Namespace:
    parser = page.parser("profile", "Where the processor time of one gateway process goes.")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each half (default: %(default)s)")
    return page.read(parser, seconds=1.0)


def _sample(target: Target, surroundings: Surroundings, *, is_streamed: bool, seconds: float) -> Sampled:
    def load(seconds: float) -> Cell:
        return measure(
            target,
            surroundings,
            body=body(is_streamed=is_streamed),
            concurrency=_CONCURRENCY,
            seconds=seconds,
            warm_up_s=0.0,
        )

    load(min(seconds, _WARM_UP_S))
    _tell(target, "start")
    cell = load(seconds)
    stacks = [(thread, stack, used_s) for thread, stack, used_s in _tell(target, "stop")]
    return Sampled(stacks=stacks, requests=cell.requests, busy=cell.worker_busy)


def _tell(target: Target, what: str) -> Any:
    request = urllib.request.Request(f"{target.url}/bench/{what}", method="POST")  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own
        return json.load(answer)


if __name__ == "__main__":
    main()
