"""Everything that `bench gateway` compares, started in front of one upstream, each pinned to the same core."""

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.parts import litellm, nginx, processes
from bench.parts.installation import Installation, installation
from bench.parts.measuring import Surroundings, Target, pinned
from bench.parts.requesting import STREAMED_CHUNKS, body
from config.home import Home

UPSTREAM, NGINX, PASSTHROUGH, TOLLGATE, LITELLM = "upstream", "nginx", "pass-through", "Tollgate", "LiteLLM"
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The targets by name, in the order of the report, and notes on who is missing or runs otherwise than wished."""

    targets: dict[str, Target]
    surroundings: Surroundings
    installation: Installation
    notes: list[str]


@contextlib.contextmanager
def compared(*, with_litellm: bool, home: Home) -> Iterator[Comparison]:
    """Start all of them. LiteLLM's environment is kept in the home, for the next time."""
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        # Before anything runs that an installation could slow down.
        programs = _install(home, notes) if with_litellm else None
        own = stack.enter_context(installation())
        found = [Target(UPSTREAM, own.upstream, own.keys)]
        if program := nginx.find():
            url, pid = stack.enter_context(nginx.running(program, upstream=own.upstream))
            found.append(Target(NGINX, url, own.keys, (pid,)))
        else:
            notes.append("nginx is left out: this machine has none (Debian: `apt-get install nginx-light`).")
        variables = {"PASSTHROUGH_UPSTREAM": own.upstream}
        url, pid = stack.enter_context(processes.uvicorn("bench.parts.passthrough:app", environ=variables))
        found.append(Target(PASSTHROUGH, url, own.keys, (pid,)))
        found.append(Target(TOLLGATE, own.url, own.keys, tuple(own.web_pids)))
        if programs:
            found += _litellm(stack, programs, own, notes)
        workers = [pid for target in found for pid in target.pids]
        for target in found:
            _check(target)
        yield Comparison(
            targets={target.name: target for target in found},
            surroundings=pinned(own.sandbox_pid, workers),
            installation=own,
            notes=notes,
        )


def _install(home: Home, notes: list[str]) -> Path | None:
    try:
        return litellm.install(home.path / "bench" / "litellm")
    except litellm.Unavailable as why:
        print(f"LiteLLM could not be installed: {why}", flush=True)
        notes.append("LiteLLM is left out: it could not be installed.")
        return None


def _litellm(
    stack: contextlib.ExitStack, programs: Path, own: Installation, notes: list[str]
) -> list[Target]:
    database_url = own.instance.env()["DATABASE_URL"]
    try:
        proxy = stack.enter_context(
            litellm.running(programs, upstream=own.upstream, database_url=database_url)
        )
    except litellm.Unavailable as why:
        print(f"LiteLLM did not start: {why}", flush=True)
        notes.append("LiteLLM is left out: it did not start.")
        return []
    if proxy.has_database:
        how = "with a virtual key and its own database on the same PostgreSQL."
    else:
        how = (
            "on its master key, **without a database**: it looks no key up and writes nothing down. To set up its "
            "database client, a program must be fetched from the client's maker, and that failed here."
        )
    notes.append(f"LiteLLM {proxy.version} runs {how}")
    return [Target(LITELLM, proxy.url, [proxy.key], tuple(proxy.pids))]


def _check(target: Target) -> None:
    """Everybody must do the same work: a whole answer, and a stream in as many chunks as were asked for."""
    message = json.loads(_answer(target, is_streamed=False))["choices"][0]["message"]
    assert message["content"], f"{target.name} answers nothing"
    lines = [line for line in _answer(target, is_streamed=True).splitlines() if line.startswith(b"data: {")]
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    chunks = sum(
        bool(choice.get("delta", {}).get("content")) for event in events for choice in event["choices"]
    )
    assert chunks == STREAMED_CHUNKS, f"{target.name} streams {chunks} chunks, not {STREAMED_CHUNKS}"


def _answer(target: Target, *, is_streamed: bool) -> bytes:
    request = urllib.request.Request(  # noqa: S310 - our own
        f"{target.url}/v1/chat/completions",
        data=json.dumps(body(is_streamed=is_streamed)).encode(),
        headers={"Authorization": f"Bearer {target.keys[0]}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310 - our own
        return bytes(answer.read())
