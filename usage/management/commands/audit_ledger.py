"""`manage.py audit_ledger`: exit status 0 and a summary, or 1 and every discrepancy.

With `--verify-chain` every hash of the ledger is computed anew, and the first transaction that was changed is named.
"""

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

    def handle(self, *args: Any, **options: Any) -> None:
        report = auditing.audit_ledger(at=timezone.now())
        discrepancies = list(report.discrepancies)
        chain = verifying.verify_chain() if options["verify_chain"] else None
        if chain and chain.broken:
            discrepancies.append(f"the first that is wrong in the chain: {chain.broken}")
        checked = ", ".join(f"{count:,} {name}" for name, count in report.checked.items())
        for discrepancy in discrepancies:
            self.stderr.write(discrepancy)
        if discrepancies:
            self.stderr.write(f"{len(discrepancies):,} discrepancies in {checked}.")
            sys.exit(1)
        self.stdout.write(f"The books agree at {report.at:%Y-%m-%d %H:%M:%S} UTC: {checked}.")
        if chain:
            self.stdout.write(
                f"The chain holds over {chain.verified:,} ledger transactions; its head is {chain.head_hash}."
            )
