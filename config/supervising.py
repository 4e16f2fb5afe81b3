"""`./tollgate up`: starts everything, watches over it, stops it in order.

Standard library only, and no Django: this process stays small for as long as the instance runs.
"""

import contextlib
import os
import signal
import socket
import sys
import time

from config import environment
from config.children import Child, rotate, stop_together
from config.command_line import Command
from config.doorman import Doorman
from config.embedded import Embedded
from config.home import Home, State, say
from config.listening import answers_ready, listen, url_of, warn_about_strangers
from config.preparing import prepare
from config.refusal import Refused
from config.signals import Signals, StopRequested

_READY_PATIENCE_S = 90.0
_LOOK_S = 0.05
# uvicorn itself gives running requests 30 s.
_WEB_PATIENCE_S = 35.0
_OTHERS_PATIENCE_S = 15.0
_HOUSEKEEPING_S = 60.0
_CONNECTIONS_FOR_ONE_PROCESS = 60
_CONNECTIONS_FOR_EACH_MORE = 20


def up(command: Command) -> int:
    """Run an instance until Ctrl-C or SIGTERM; return the exit code.

    Raises:
        Refused: the home is in use, the port is taken, or something did not start.
    """
    home = Home.of(os.environ)
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(home.locked("up", patience_s=0.5)):
            raise Refused(_who_is_there(home))
        was_killed = home.read_state() is not None
        signals = stack.enter_context(Signals().caught())
        listener = stack.enter_context(
            listen(command.host, command.port, patience_s=3.0 if was_killed else 0.0)
        )
        return Instance(home=home, command=command, listener=listener, signals=signals).run()


def _who_is_there(home: Home) -> str:
    holder, state = home.holder(), home.read_state()
    if holder and holder.purpose != "up":
        return f"`{holder.purpose}` (pid {holder.pid}) is using {home.path}: try again when it has ended"
    where = f" at {state.url}" if state else ""
    return (
        f"already running{where} on {home.path} (pid {holder.pid if holder else '?'}): stop it first, "
        "or set TOLLGATE_HOME and --port to run a second one"
    )


class Instance:
    """One running Tollgate: services, web processes, worker and sandbox upstream."""

    def __init__(self, *, home: Home, command: Command, listener: socket.socket, signals: Signals) -> None:
        self._home = home
        self._command = command
        self._listener = listener
        self._signals = signals
        self._port: int = listener.getsockname()[1]
        self._url = url_of(command.host, self._port)
        needs = environment.Needs.of(os.environ)
        connections = _CONNECTIONS_FOR_ONE_PROCESS + _CONNECTIONS_FOR_EACH_MORE * (command.processes - 1)
        self._embedded = Embedded(
            home, postgres=needs.postgres, redis=needs.redis, max_connections=connections
        )
        self._sandbox_listener = listen("127.0.0.1", 0) if needs.sandbox else None
        self._additions = self._environment()
        self._environ = environment.for_children(os.environ, self._additions)
        self._web = [self._web_child(number) for number in range(command.processes)]
        self._worker = Child("worker", [sys.executable, "-m", "config.worker"], log=home.logs / "worker.log")
        self._sandbox = self._sandbox_child()

    def run(self) -> int:
        """Start, watch, and stop at the first request to; a second one does not wait for anything."""
        began = time.monotonic()
        try:
            self._start()
            self._announce(time.monotonic() - began)
            self._watch()
        except StopRequested:
            pass
        finally:
            self._stop()
        return 0

    # --- Starting ------------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        """The variables that make this instance this instance."""
        home = self._home.path
        additions = {
            **environment.identity(os.environ, self._home, has_data=(home / "postgres").exists()),
            **self._embedded.urls,
            "TOLLGATE_HOME": str(home),
            # Where commands that call the gateway find it.
            "TOLLGATE_URL": self._url,
            "ALLOWED_HOSTS": environment.allowed_hosts(os.environ, host=self._command.host),
        }
        if self._sandbox_listener:
            additions["SANDBOX_UPSTREAM_URL"] = (
                f"http://127.0.0.1:{self._sandbox_listener.getsockname()[1]}/v1"
            )
        return additions

    def _web_child(self, number: int) -> Child:
        trusted = os.environ.get("TRUSTED_PROXIES")
        proxies = ["--forwarded-allow-ips", trusted] if trusted else ["--no-proxy-headers"]
        options = [
            "--lifespan",
            "on",
            "--timeout-graceful-shutdown",
            "30",
            "--timeout-keep-alive",
            "75",
            *proxies,
        ]
        name = "web" if self._command.processes == 1 else f"web-{number + 1}"
        return self._server_child(name, "config.asgi:application", self._listener, options)

    def _sandbox_child(self) -> Child | None:
        if self._sandbox_listener is None:
            return None
        return self._server_child(
            "sandbox", "gateway.sandbox.app:app", self._sandbox_listener, ["--no-proxy-headers"]
        )

    def _server_child(
        self, name: str, application: str, listener: socket.socket, options: list[str]
    ) -> Child:
        quiet = ["--no-server-header", "--no-access-log", "--log-level", "warning"]
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            application,
            "--fd",
            str(listener.fileno()),
            "--loop",
            "uvloop",
        ]
        return Child(
            name,
            [*command, "--http", "config.http_protocol:StrictHttpProtocol", *quiet, *options],
            log=self._home.logs / f"{name}.log",
            inherited_descriptors=[listener.fileno()],
        )

    @property
    def _servers(self) -> list[Child]:
        """What answers over HTTP."""
        return [*self._web, *([self._sandbox] if self._sandbox else [])]

    @property
    def _programs(self) -> list[Child]:
        """Everything that is not PostgreSQL or Redis."""
        return [*self._servers, self._worker]

    def _start(self) -> None:
        say(f"data, logs and secrets are in {self._home.path}")
        warn_about_strangers(self._command.host)
        self._embedded.start(self._environ, pause=self._signals.pause)
        prepare(self._home, self._environ, pause=self._signals.pause)
        for child in self._servers:
            child.start(self._environ)
        self._write_state(is_ready=False)
        self._wait_until_ready()
        # Not before the first page can be served: on a small machine it would only slow that down.
        self._worker.start(self._environ)
        self._write_state(is_ready=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_PATIENCE_S
        name = self._additions["ALLOWED_HOSTS"].partition(",")[0].lstrip(".")
        while not answers_ready(self._listener, "localhost" if name in {"*", ""} else name):
            self._signals.pause(_LOOK_S)
            for child in self._servers:
                if not child.is_running:
                    raise Refused(
                        f"{child.name} ended while starting; the end of {child.log}:\n{child.last_words()}"
                    )
            if time.monotonic() > deadline:
                web = self._web[0]
                raise Refused(f"/health/ready did not say 200; the end of {web.log}:\n{web.last_words()}")

    def _announce(self, seconds: float) -> None:
        lines = [f"\nTollgate is ready: {self._url}  ({seconds:.1f} s)", f"  API base URL     {self._url}/v1"]
        if self._sandbox:
            lines.append("  Models           played by the built-in sandbox, because no provider key is set")
        if self._additions["TOLLGATE_EMBEDDED"] == "1" and not self._environ.get("EMAIL_URL"):
            lines.append("  Mail             kept in an outbox that the pages show; nothing is sent")
        lines += ["  Next             open the address and sign up", "  Ctrl-C stops it.\n"]
        sys.stdout.write("\n".join(lines))
        sys.stdout.flush()

    # --- Watching ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Start again whatever dies, each after its own delay; never returns but by StopRequested."""
        housekeeping_at = time.monotonic() + _HOUSEKEEPING_S
        while True:
            delays = [_HOUSEKEEPING_S]
            for child in [*self._embedded.children, *self._programs]:
                if child.is_running:
                    continue
                if child.wait_before_restart_s > 0:
                    delays.append(child.wait_before_restart_s)
                else:
                    self._restart(child)
            self._signals.pause(min(delays))
            if time.monotonic() > housekeeping_at:
                housekeeping_at = time.monotonic() + _HOUSEKEEPING_S
                for child in [*self._embedded.children, *self._programs]:
                    rotate(child.log)

    def _restart(self, child: Child) -> None:
        say(f"{child.name} has ended and is started again (see {child.log})")
        try:
            if child in self._embedded.children:
                self._embedded.restart(child, self._environ)
            else:
                child.start(self._environ)
        except OSError as error:
            # No memory or no process to be had just now: the others go on, and this one is tried again.
            say(f"{child.name} could not be started: {error}")
        self._write_state(is_ready=True)

    def _write_state(self, *, is_ready: bool) -> None:
        children: dict[str, list[int]] = {}
        for child in [*self._embedded.children, *self._programs]:
            if child.pid:
                children.setdefault(child.name.partition("-")[0], []).append(child.pid)
        self._home.write_state(
            State(
                pid=os.getpid(),
                host=self._command.host,
                port=self._port,
                url=self._url,
                is_ready=is_ready,
                environ=environment.for_manage(os.environ, self._additions),
                children=children,
            )
        )

    # --- Stopping ------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Callers first, then those who work for them, then the data. Until the end somebody is at the door."""
        doorman = Doorman(self._listener)
        doorman.start()
        if any(child.is_running for child in self._web):
            say("stopping: running requests may take up to 30 s; Ctrl-C again stops at once")
        others = [child for child in self._programs if child not in self._web]
        stop_together(self._web, signal.SIGTERM, patience_s=_WEB_PATIENCE_S, in_a_hurry=self._is_in_a_hurry)
        stop_together(others, signal.SIGTERM, patience_s=_OTHERS_PATIENCE_S, in_a_hurry=self._is_in_a_hurry)
        if self._sandbox_listener:
            self._sandbox_listener.close()
        self._embedded.stop()
        doorman.stop()
        self._home.forget_state()

    def _is_in_a_hurry(self) -> bool:
        return self._signals.stop_requests > 1
