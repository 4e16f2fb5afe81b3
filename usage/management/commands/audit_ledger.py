"""`manage.py audit_ledger`: exit status 0 and a summary, or 1 and every discrepancy.

With `--verify-chain` every hash of the ledger is computed anew, and the first transaction that was changed is named.
"""

import argparse
import re
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from billing import verifying
from usage import auditing


class Command(BaseCommand):
    help = "Prove that wallets, ledger, holds, budgets, allowances and usage agree to the nano-dollar."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--verify-chain",
            action="store_true",
            help="also compute every hash of the ledger anew, and name the first transaction that was changed",
        )

        parser.add_argument(
            "--anchor",
            type=_anchor,
            metavar="NUMBER:HASH",
            help="a transaction as it was noted down before: it must still be the same one (verifies the chain, too)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        report = auditing.audit_ledger(at=timezone.now())
        discrepancies = list(report.discrepancies)
        anchor: tuple[int, str] | None = options["anchor"]
        chain = verifying.verify_chain() if options["verify_chain"] or anchor else None
        if chain:
            verifying.remember(chain, at=report.at)
        if chain and chain.broken:
            discrepancies.append(f"the first that is wrong in the chain: {chain.broken}")
        if anchor and not verifying.still_has(number=anchor[0], entry_hash=anchor[1]):
            discrepancies.append(
                f"ledger transaction {anchor[0]:,} is not that of the anchor: it was written anew"
            )
        checked = ", ".join(f"{count:,} {name}" for name, count in report.checked.items())
        for discrepancy in discrepancies:
            self.stderr.write(discrepancy)
        if discrepancies:
            noun = "discrepancy" if len(discrepancies) == 1 else "discrepancies"
            self.stderr.write(f"{len(discrepancies):,} {noun} in {checked}.")
            sys.exit(1)
        self.stdout.write(f"The books agree at {report.at:%Y-%m-%d %H:%M:%S} UTC: {checked}.")
        if chain:
            self.stdout.write(
                f"The chain holds over {chain.verified:,} ledger transactions;"
                f" its head is {chain.verified}:{chain.head_hash}."
            )


def _anchor(written: str) -> tuple[int, str]:
    found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", written, re.ASCII)
    if found is None:
        msg = f"{written} is not a number, a colon and a hash of 64 digits"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]), found[2]
