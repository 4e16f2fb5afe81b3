"""LiteLLM's proxy as a peer, in an environment of its own that is kept between runs.

With its database, it knows virtual keys and writes what they spent. Its database client needs a program that is
fetched from a server of its maker; where that fails, it runs without, on its master key alone, and does less work.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import environ
import psycopg

from bench.parts.processes import DidNotStart, family, free_port, server
from bench.parts.requesting import MODEL
from config.home import ROOT

LOCK_FILE = ROOT / "bench" / "peers" / "litellm.lock"
_DATABASE = "litellm"
_INSTALL_PATIENCE_S = 900.0
_PRISMA_PATIENCE_S = 300.0
# Without a database it takes ten seconds; with one it first makes its tables, in hundreds of steps.
_START_PATIENCE_S = 400.0


class Unavailable(Exception):
    """It cannot be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """It runs: where, with which key, as which processes, and what to know about how."""

    url: str
    key: str = field(repr=False)
    pids: list[int]
    version: str
    # A virtual key, looked up in its database; else its master key.
    has_database: bool


def install(folder: Path) -> Path:
    """Make or reuse its environment; return the folder of its programs.

    Raises:
        Unavailable: a package could not be fetched, or none fits this Python.
    """
    stamp, wanted = folder / "lock.sha256", hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()
    programs = folder / "bin"
    if stamp.exists() and stamp.read_text() == wanted and (programs / "litellm").exists():
        return programs
    print(f"installing LiteLLM's proxy into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = str(programs / "python")
    if uv := _find_uv():
        make, installer = (
            [uv, "venv", "-q", "--python", sys.executable],
            [uv, "pip", "install", "--python", python],
        )
    else:
        make, installer = [sys.executable, "-m", "venv"], [python, "-m", "pip", "install"]
    _run([*make, str(folder)], patience_s=_INSTALL_PATIENCE_S)
    _run(
        [*installer, "-q", "--no-deps", "--require-hashes", "-r", str(LOCK_FILE)],
        patience_s=_INSTALL_PATIENCE_S,
    )
    stamp.write_text(wanted)
    return programs


def _find_uv() -> str | None:
    """A uv that runs. One that pyenv only pretends to have is none."""
    uv = shutil.which("uv")
    try:
        _run([uv or "uv", "--version"], patience_s=_INSTALL_PATIENCE_S)
    except Unavailable:
        return None
    return uv


@contextlib.contextmanager
def running(programs: Path, *, upstream: str, database_url: str) -> Iterator[Proxy]:
    """Start it in front of the upstream, with a database of its own on that server if it can be had.

    Raises:
        Unavailable: it does not start in either way.
    """
    with contextlib.ExitStack() as stack:
        try:
            _make_client(programs)
            made = _make_database(database_url)
            proxy = stack.enter_context(_started(programs, upstream=upstream, database_url=made))
        except (Unavailable, DidNotStart, OSError, psycopg.Error) as failure:
            print(f"LiteLLM runs without its database: {failure}", flush=True)
            try:
                proxy = stack.enter_context(_started(programs, upstream=upstream))
            except (DidNotStart, OSError) as error:
                raise Unavailable(_end_of(str(error))) from error
        yield proxy


def _make_client(programs: Path) -> None:
    """Its database client is generated from its schema, for which Prisma fetches its engine."""
    schema = next(programs.parent.glob("lib/python*/site-packages/litellm/proxy/schema.prisma"))
    command = [str(programs / "prisma"), "generate", "--schema", str(schema)]
    _run(command, patience_s=_PRISMA_PATIENCE_S, variables=_environ(programs))


def _make_database(url: str) -> str:
    """An empty database beside Tollgate's; return its address in the form that Prisma reads."""
    parts = environ.Env.db_url_config(url)
    user, password, host, port = (str(parts.get(name) or "") for name in ("USER", "PASSWORD", "HOST", "PORT"))
    with psycopg.connect(
        user=user, password=password, host=host, port=port, dbname=parts["NAME"], autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {_DATABASE}")
    if host.startswith("/"):
        return f"postgresql://{quote(user)}@localhost:{port}/{_DATABASE}?host={quote(host)}"
    return f"postgresql://{quote(user)}:{quote(password)}@{host}:{port}/{_DATABASE}"


@contextlib.contextmanager
def _started(programs: Path, *, upstream: str, database_url: str = "") -> Iterator[Proxy]:
    master_key, port = f"sk-{secrets.token_hex(16)}", free_port()
    url = f"http://127.0.0.1:{port}"
    configuration = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"{upstream}/v1",
                    "api_key": "none",
                },
            }
        ],
        "general_settings": {"master_key": master_key},
        "litellm_settings": {"telemetry": False},
    }
    variables = _environ(programs) | ({"DATABASE_URL": database_url} if database_url else {})
    with tempfile.TemporaryDirectory(prefix="tollgate-litellm-") as folder:
        # JSON is YAML.
        file = Path(folder) / "litellm.yaml"
        file.write_text(json.dumps(configuration))
        place = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        command = [str(programs / "litellm"), "--config", str(file), *place, "--telemetry", "False"]
        with server(
            command, health=f"{url}/health/readiness", environ=variables, patience_s=_START_PATIENCE_S
        ) as pid:
            key = _virtual_key(url, master_key) if database_url else master_key
            yield Proxy(
                url=url, key=key, pids=family(pid), version=_version(), has_database=bool(database_url)
            )


def _virtual_key(url: str, master_key: str) -> str:
    request = urllib.request.Request(  # noqa: S310 - our own
        f"{url}/key/generate",
        data=json.dumps({"models": [MODEL]}).encode(),
        headers={"Authorization": f"Bearer {master_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own
        return str(json.load(answer)["key"])


def _version() -> str:
    lines = LOCK_FILE.read_text().splitlines()
    return next(line.split()[0].partition("==")[2] for line in lines if line.startswith("litellm=="))


def _environ(programs: Path) -> dict[str, str]:
    """As its makers advise for production. Nothing of ours but the PATH and what the machine's network needs."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")
    }
    return inherited | {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        # Its price list comes with the package; it would ask the network for a newer one.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _run(command: list[str], *, patience_s: float, variables: Mapping[str, str] | None = None) -> None:
    try:
        subprocess.run(
            command,
            env=variables,
            cwd=ROOT,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience_s,
        )
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{Path(command[0]).name} failed: {_end_of(error.stderr)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(_end_of(str(error))) from error


def _end_of(text: str) -> str:
    """The end of what a program said: it fits a report and has no line breaks."""
    return " ".join(text.split())[-300:]
