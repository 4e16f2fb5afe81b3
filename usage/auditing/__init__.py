"""The proof that no money was made, lost or counted twice. Each theme has a module of checks; `audit` runs them all."""

from usage.auditing.audit import AuditReport, audit_ledger

__all__ = ["AuditReport", "audit_ledger"]
