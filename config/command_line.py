"""What can be typed after `./tollgate`. Standard library only: it is read before the environment exists."""

import argparse
import sys
from dataclasses import dataclass
from typing import NoReturn

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
_HIGHEST_PORT = 65535
_MOST_PROCESSES = 64

# These hand their arguments on as they are, `--help` included.
_PASSING_ON = ("test", "manage", "bench")

_EPILOG = """\
environment:
  TOLLGATE_HOME          where data, logs and secrets live (default: var/ beside this file); two homes run side by side
  DATABASE_URL           your own PostgreSQL instead of the embedded one (then SECRET_KEY and KEY_PEPPERS are yours too)
  REDIS_URL              your own Redis instead of the embedded one
  docs/settings.md       explains every variable

examples:
  ./tollgate up --port 8080
  ./tollgate manage create_account you@example.com --credit 20
  ./tollgate test tests/keys -k rotate
"""


@dataclass(frozen=True)
class Command:
    """One parsed command line; `arguments` are those handed on to pytest, manage.py or a benchmark."""

    name: str
    arguments: tuple[str, ...] = ()
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    processes: int = 1

    @property
    def needs_dev_tools(self) -> bool:
        """Whether it runs on requirements/dev.lock, or on base.lock alone."""
        return self.name in {"test", "check", "bench"}


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage text is one `--help` away."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"tollgate: {message} (see ./tollgate --help)\n")
        sys.exit(2)


def parse(argv: list[str]) -> Command:
    """Read a command line.

    Exits with 0 after printing help, and with 2 after one line on standard error when something is wrong.
    """
    if argv and argv[0] in _PASSING_ON:
        return Command(name=argv[0], arguments=tuple(argv[1:]))
    found = _parser().parse_args(argv or ["--help"])
    if found.command == "up":
        return Command(name="up", host=found.host, port=found.port, processes=found.processes)
    return Command(name=found.command)


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="./tollgate",
        description="Self-hosted console and gateway for prepaid AI API keys.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_OneLineParser
    )
    up = commands.add_parser("up", help="start everything and print the address; Ctrl-C stops it")
    up.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help=f"port to listen on; 0 picks a free one (default: {DEFAULT_PORT})",
    )
    up.add_argument(
        "--host",
        default=DEFAULT_HOST,
        help=f"address to listen on; 0.0.0.0 is every one (default: {DEFAULT_HOST})",
    )
    up.add_argument("--processes", type=_processes, default=1, metavar="N", help="web processes (default: 1)")
    commands.add_parser("test", help="run the tests on real PostgreSQL and Redis: test [pytest's arguments]")
    commands.add_parser(
        "check", help="format, lint, types, import contracts, migrations, deploy checks, lock files"
    )
    commands.add_parser(
        "manage", help="run a management command, on the running instance if there is one: manage COMMAND"
    )
    commands.add_parser("bench", help="measure: bench NAME [its arguments]; without a name, lists them")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"give a number from 0 to {_HIGHEST_PORT}, not {text!r}")
    return int(text)


def _processes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"give a number from 1 to {_MOST_PROCESSES}, not {text!r}")
    return int(text)
