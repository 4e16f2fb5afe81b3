"""What the benchmarks share towards people: their options, the machine they ran on, and the page they write."""

import argparse
import datetime as dt
import os
import platform
import re
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

from config.home import ROOT

PAGE = ROOT / "docs" / "performance.md"
_QUIET = 0.1


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"./tollgate bench {name}", description=description)
    made.add_argument(
        "--output",
        type=Path,
        help="where to write (default: its section of docs/performance.md; --quick: nowhere)",
    )
    made.add_argument(
        "--quick", action="store_true", help="as little as possible, to see that the bench itself works"
    )
    return made


def add_rounds(made: argparse.ArgumentParser, *, rounds: int, seconds: float) -> None:
    """The options of those that measure in rounds."""
    made.add_argument(
        "--rounds", type=int, default=rounds, help="rounds of every measurement (default: %(default)s)"
    )
    made.add_argument(
        "--seconds", type=float, default=seconds, help="of each measurement (default: %(default)s)"
    )


def read(made: argparse.ArgumentParser, **quick: object) -> argparse.Namespace:
    """The options as they were typed; `--quick` replaces those named here, and writes nowhere unless told."""
    options = made.parse_args()
    if options.quick:
        vars(options).update(quick)
    elif options.output is None:
        options.output = PAGE
    return options


def publish(options: argparse.Namespace, name: str, text: str) -> None:
    """Print a benchmark's section, and put it in its place on the page."""
    print(text)
    if options.output:
        path: Path = options.output
        path.write_text(placed(path.read_text() if path.exists() else "", name, text))
        print(f"written to {path}")


def placed(page: str, name: str, text: str) -> str:
    """The page with this section in place of the last one of that name; what people wrote around it stays."""
    begin, end = f"<!-- begin: bench {name} -->", f"<!-- end: bench {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _match: section, page)
    return f"{page.rstrip()}\n\n{section}\n".lstrip()


def provenance(name: str, others_busy: Sequence[float] = (0.0,)) -> str:
    """The command, the machine and the day; and a warning where others were at work on it."""
    cores = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    command = f"./tollgate bench {shlex.join([name, *_arguments_that_matter()])}"
    return (
        f"`{command}` on {_processor()}, {cores} cores, {memory_gib:.0f} GiB;\n{platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}; {dt.datetime.now(dt.UTC):%Y-%m-%d}."
        f"{_warning(statistics.median(others_busy))}"
    )


def _arguments_that_matter() -> list[str]:
    """What was typed, without where the result was to be written."""
    made = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    made.add_argument("--output")
    return made.parse_known_args()[1]


def _warning(others_busy: float) -> str:
    if others_busy < _QUIET:
        return ""
    return (
        f"\n\n**The machine was not idle**: other work used {others_busy:.0%} of it, so the figures are too low and\n"
        "the ratios unsteady. Measure again on a quiet machine before you believe them."
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] != "unknown" else f"{platform.machine()} processor"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table. The first `left` columns are words, the others figures."""
    rule = ["---" if index < left else "--:" for index in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rule, *rows])
