"""`manage.py export_ledger --from 2026-11-01 --to 2026-11-30`: the postings of these days as CSV."""

import contextlib
import csv
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from django.utils import timezone

from billing import ledger_export

# What is posted gets the time at which its act began. None takes this long.
_SETTLES = dt.timedelta(hours=1)


class Command(BaseCommand):
    help = "Write the postings of a range of UTC days as CSV that an accountant can import."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", dest="first", required=True, metavar="DATE", help="the first day, UTC")
        parser.add_argument("--to", dest="last", required=True, metavar="DATE", help="the last day, included")
        parser.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: here)")

    def handle(self, *args: Any, **options: Any) -> None:
        first, last = _day("--from", options["first"]), _day("--to", options["last"])
        if first > last:
            msg = f"--from {first} is after --to {last}."
            raise CommandError(msg)
        path: Path | None = options["output"]
        count = 0
        with self._opened(path) as file:
            writer = csv.writer(file)
            writer.writerow(ledger_export.COLUMNS)
            for row in ledger_export.rows(first=first, last=last):
                writer.writerow(row)
                count += 1
        ended = dt.datetime.combine(last, dt.time(), dt.UTC) + dt.timedelta(days=1)
        if timezone.now() < ended + _SETTLES:
            self.stderr.write(
                f"{last} has not been over for an hour, and what is being posted may still get its date:"
                " export these days again later."
            )
        if path:
            self.stdout.write(f"{count:,} postings from {first} to {last} UTC written to {path}.")

    @contextlib.contextmanager
    def _opened(self, path: Path | None) -> Iterator[TextIO | OutputWrapper]:
        if path is None:
            # It adds a line break only where there is none.
            yield self.stdout
            return
        try:
            with path.open("w", newline="", encoding="utf-8") as file:
                yield file
        except OSError as error:
            msg = f"--output {path}: {error.strerror}."
            raise CommandError(msg) from error


def _day(option: str, written: str) -> dt.date:
    try:
        return dt.datetime.strptime(written, "%Y-%m-%d").replace(tzinfo=dt.UTC).date()
    except ValueError as error:
        msg = f"{option} {written} is not a date like 2026-11-30."
        raise CommandError(msg) from error
