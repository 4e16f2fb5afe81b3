"""`manage.py replay_trace FILE --key SECRET --speed N`: real traffic, through the running gateway."""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway.replaying import (
    BadTrace,
    GatewayRefused,
    Outlook,
    Replay,
    Target,
    TraceRequest,
    look_ahead,
    read_trace,
    replay,
)

_DEFAULT_URL = "http://127.0.0.1:8000"
_DEFAULT_MODEL = "gpt-oss-120b"
_LINE_EVERY_S = 5.0
_INTERRUPTED = 130

_EPILOG = """\
Every request is real: it is authorized, counted and charged. The default model is cheap: the 8,819 requests of
azure_llm_code_2023.csv (18,059,974 tokens in, 245,896 out) cost about $2.86 on it. The day's free allowance pays the
first 200,000 tokens and credits pay the rest, so the account needs credit: `create_account EMAIL --credit 5`.
The expected cost is asked of the gateway and printed before the first request.

The plan pay-as-you-go serves a key 3,000 requests a minute. That file stays below it up to speed 12; beyond, requests
are refused, wait and are tried again, which shows in the request log and changes no total of what was served.
"""


class Command(BaseCommand):
    help = (
        "Replay a request trace (CSV: TIMESTAMP,ContextTokens,GeneratedTokens) through the running gateway, with the "
        "trace's token counts. Ctrl-C stops it and prints the summary so far. Exit code 1 if any request failed."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs |= {"epilog": _EPILOG}
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument(
            "--key",
            default=os.environ.get("TOLLGATE_KEY", ""),
            help="the API key; `-` reads it from standard input (default: the variable TOLLGATE_KEY). "
            "A key on the command line can be seen by every user of this machine.",
        )
        parser.add_argument(
            "--speed", type=_positive, required=True, help="10 replays an hour in six minutes"
        )
        parser.add_argument(
            "--url",
            default=settings.TOLLGATE_URL or _DEFAULT_URL,
            help="the gateway's address (default: %(default)s)",
        )
        parser.add_argument(
            "--model", default=_DEFAULT_MODEL, help="which model to ask for (default: %(default)s)"
        )
        parser.add_argument("--limit", type=_count, metavar="N", help="only the first N requests of the file")
        parser.add_argument(
            "--concurrency",
            type=_count,
            default=64,
            metavar="N",
            help="most requests at once (default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        requests = self._read(options["file"], limit=options["limit"])
        key = sys.stdin.readline().strip() if options["key"] == "-" else options["key"].strip()
        if not key:
            raise CommandError(
                "give the key: --key SECRET, --key - with the key on standard input, or TOLLGATE_KEY"
            )
        url = options["url"].rstrip("/").removesuffix("/v1")
        if not url.startswith(("http://", "https://")):
            raise CommandError(f"--url must start with http:// or https://, not {url!r}")
        target = Target(url=url, key=key, model=options["model"])
        try:
            outlook = asyncio.run(look_ahead(target=target, requests=requests))
        except GatewayRefused as refused:
            raise CommandError(f"{target.url}: {refused}") from refused
        self._announce(requests, outlook, options)
        result = asyncio.run(
            replay(
                target=target,
                requests=requests,
                speed=options["speed"],
                concurrency=options["concurrency"],
                on_progress=_Progress(self.stdout),
            )
        )
        self._summarize(result)
        if result.is_interrupted:
            raise SystemExit(_INTERRUPTED)
        if not result.is_complete:
            raise SystemExit(1)

    def _read(self, file: Path, *, limit: int | None) -> list[TraceRequest]:
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                return read_trace(lines, limit=limit)
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}") from error
        except BadTrace as error:
            raise CommandError(f"{file}: {error}") from error

    def _announce(self, requests: list[TraceRequest], outlook: Outlook, options: dict[str, Any]) -> None:
        tokens_in = sum(request.context_tokens for request in requests)
        tokens_out = sum(request.generated_tokens for request in requests)
        self.stdout.write(
            f"{len(requests):,} requests with {tokens_in:,} tokens in and {tokens_out:,} out, "
            f"in {_duration(requests[-1].at_s / options['speed'])} at speed {options['speed']:g}"
        )
        cost = f"expected cost on {options['model']}: ${outlook.cost_usd:.4f}"
        self.stdout.write(f"{cost}; available credit: ${outlook.available_usd:.4f}")
        if outlook.is_free_tier:
            self.stdout.write(
                "the account is on the free plan: the replay stops when the day's allowance is used up"
            )
        elif outlook.available_usd < outlook.cost_usd:
            self.stdout.write("the credit may not last: the replay stops when it is used up")

    def _summarize(self, result: Replay) -> None:
        rate = result.done / result.elapsed_s if result.elapsed_s else 0.0
        cost = f"${result.cost_usd:f}" if result.cost_usd else "$0"
        unfinished = result.total - result.done - result.failed
        p50_ms, p99_ms = (result.percentile_s(share) * 1000 for share in (0.5, 0.99))
        tokens_in = f"{result.input_tokens:,} sent, {result.reported_input_tokens:,} reported"
        tokens_out = f"{result.output_tokens:,} asked for, {result.reported_output_tokens:,} reported"
        counts = f"{result.done:,} served, {result.failed:,} failed, {unfinished:,} not finished"
        lines = [
            f"requests           {counts}, of {result.total:,}",
            f"tokens in          {tokens_in}",
            f"tokens out         {tokens_out}",
            f"charged to credits {cost}",
            f"refusals retried   {result.refusals_retried:,}",
            f"latency            p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms",
            f"wall time          {_duration(result.elapsed_s)}, {rate:.1f} requests a second",
        ]
        if result.miscounted:
            lines.append(
                f"NOT EQUAL          {result.miscounted:,} answers report other counts than the trace"
            )
        lines += [f"failed {count:,} times: {reason}" for reason, count in result.failures.items()]
        if result.stopped_because:
            lines.append("stopped, because every further request would have been refused as well")
        if result.is_interrupted:
            lines.append("interrupted")
        self.stdout.write("\n".join(lines))


class _Progress:
    """One line that is written over on a terminal; a line every few seconds elsewhere."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._is_terminal = bool(stream.isatty())
        self._last = time.monotonic()

    def __call__(self, state: Replay) -> None:
        now = time.monotonic()
        if not self._is_terminal and now - self._last < _LINE_EVERY_S:
            return
        self._last = now
        remaining = state.remaining_s()
        eta = "-" if remaining is None else _duration(remaining)
        finished = state.done + state.failed
        line = (
            f"{finished / state.total:4.0%}  {state.done:,} done, {state.failed:,} failed, "
            f"{state.in_flight} in flight, {finished / max(state.elapsed_s, 0.001):.0f}/s, {eta} left"
        )
        if self._is_terminal:
            self._stream.write(f"\r\x1b[K{line}", ending="\r" if finished < state.total else "\n")
            self._stream.flush()
        else:
            self._stream.write(line)


def _duration(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"give a number above 0, not {text!r}")
    return number


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:  # noqa: PLR2004 - a bound
        raise argparse.ArgumentTypeError(f"give a whole number above 0, not {text!r}")
    return int(text)
