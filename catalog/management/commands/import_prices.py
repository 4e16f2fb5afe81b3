"""`manage.py import_prices FILE`: new prices from a file in the format of LiteLLM's price map."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from catalog.importing import BadPriceMap, ImportReport, Outcome, import_price_map, read_price_map

_MOST_LISTED = 10


class Command(BaseCommand):
    help = (
        "Read a price map (LiteLLM's JSON format) and give every model of ours that it prices differently a new price "
        "from now on. Past prices stay, and requests already admitted keep theirs. Nothing changes if the file is bad."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would change, and change nothing"
        )
        parser.add_argument(
            "--create", action="store_true", help="also add unknown chat models of known providers, disabled"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            document = read_price_map(options["file"].read_bytes())
            with transaction.atomic():
                report = import_price_map(
                    document=document, at=timezone.now(), create_missing=options["create"]
                )
                transaction.set_rollback(options["dry_run"])
        except OSError as error:
            raise CommandError(f"cannot read {options['file']}: {error.strerror}") from error
        except BadPriceMap as error:
            raise CommandError(f"{options['file']}: {error}. Nothing was changed.") from error
        self._write(report, is_dry_run=options["dry_run"], verbosity=options["verbosity"])

    def _write(self, report: ImportReport, *, is_dry_run: bool, verbosity: int) -> None:
        everything = verbosity > 1
        self._list(report, "changed", limit=None)
        self._list(report, "created", limit=None)
        self._list(report, "skipped", limit=None if everything else _MOST_LISTED)
        self._list(report, "unknown", limit=None if everything else 0)
        self._list(report, "unchanged", limit=None if everything else 0)
        count = {
            outcome: len(report.of(outcome))
            for outcome in ("changed", "created", "unchanged", "unknown", "skipped", "elsewhere")
        }
        changed, created = ("would change", "would be added") if is_dry_run else ("changed", "added")
        self.stdout.write(
            f"{count['changed']} prices {changed}, {count['created']} models {created}, "
            f"{count['unchanged']} unchanged; left alone: {count['unknown']} unknown models, "
            f"{count['skipped']} entries skipped, {count['elsewhere']} of other providers."
        )

    def _list(self, report: ImportReport, outcome: Outcome, *, limit: int | None) -> None:
        lines = report.of(outcome)
        for line in lines[:limit]:
            self.stdout.write(f"{outcome:9}  {line.name}: {line.words}")
        if limit and len(lines) > limit:
            self.stdout.write(f"{outcome:9}  ... and {len(lines) - limit} more (--verbosity 2 lists them)")
