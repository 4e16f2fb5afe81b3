"""`manage.py audit_ledger`: exit status 0 and a summary, or 1 and every discrepancy."""

import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from usage import auditing


class Command(BaseCommand):
    help = "Prove that wallets, ledger, holds, budgets, allowances and usage agree to the nano-dollar."

    def handle(self, *args: Any, **options: Any) -> None:
        report = auditing.audit_ledger(at=timezone.now())
        checked = ", ".join(f"{count:,} {name}" for name, count in report.checked.items())
        for discrepancy in report.discrepancies:
            self.stderr.write(discrepancy)
        if report.discrepancies:
            self.stderr.write(f"{len(report.discrepancies):,} discrepancies in {checked}.")
            sys.exit(1)
        self.stdout.write(f"The books agree at {report.at:%Y-%m-%d %H:%M:%S} UTC: {checked}.")
