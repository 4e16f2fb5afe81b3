"""What happened to a key, in sentences: its audit events, read for people."""

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal

from accounts.models import AuditEvent
from keys.models import ApiKey

_TITLES = {
    "key.issued": "Created",
    "key.rotated": "Rotated",
    "key.revoked": "Revoked",
    "key.disabled": "Disabled",
    "key.enabled": "Enabled",
    "key.policy_changed": "Policy changed",
    "key.budget_set": "Spend limit set",
    "key.budget_cleared": "Spend limit taken away",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One act: when, by whom (None: the system or the operator's command line), what, and its details."""

    at: dt.datetime
    actor: str | None
    title: str
    details: list[str] = field(default_factory=list)


def history(*, key: ApiKey, limit: int = 50) -> list[Entry]:
    """The latest acts on the key, the newest first."""
    events = (
        AuditEvent.objects.filter(account_id=key.account_id, subject_type="key", subject_id=str(key.pk))
        .select_related("actor")
        .order_by("-id")[:limit]
    )
    return [
        Entry(
            at=event.created_at,
            actor=None if event.actor is None else str(event.actor),
            title=_TITLES.get(event.action, event.action),
            details=_details(event),
        )
        for event in events
    ]


def _details(event: AuditEvent) -> list[str]:
    detail = event.detail
    match event.action:
        case "key.issued":
            return [f"Secret {detail['start']}…{detail['end']}"]
        case "key.rotated":
            refused_from = dt.datetime.fromisoformat(detail["earlier_refused_from"])
            return [
                f"New secret {detail['start']}…{detail['end']}",
                f"Earlier ones refused from {refused_from.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC",
            ]
        case "key.policy_changed":
            return [
                f"{_label(name)}: {_value(change['before'])} → {_value(change['after'])}"
                for name, change in detail["changes"].items()
            ]
        case "key.budget_set":
            period = "in total" if detail["period"] == "total" else f"a {detail['period']}"
            limit = f"${Decimal(detail['limit_usd']):,.2f} {period}"
            return [limit if detail.get("is_hard_stop", True) else f"{limit}, alerts only"]
    return []


def _label(name: str) -> str:
    label = name.removeprefix("allowed_").removesuffix("_at").replace("_per_", " a ").replace("_", " ")
    return label.capitalize()


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "all"
    return "none" if value in (None, "") else str(value)
