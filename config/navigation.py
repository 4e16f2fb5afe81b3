"""The pages of the console, in the order of its menu."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the menu; `is_current` where the page belongs to it."""

    address: str
    label: str
    icon: str
    is_current: bool = False


_ENTRIES = (
    Entry("/overview/", "Overview", "home"),
    Entry("/keys/", "Keys", "key"),
    Entry("/usage/", "Usage", "chart"),
    Entry("/billing/", "Billing", "card"),
    Entry("/models/", "Models", "layers"),
    Entry("/usage/alerts/", "Alerts", "bell"),
    Entry("/settings/", "Settings", "sliders"),
    Entry("/docs/", "Docs", "book"),
)
_OPERATOR = Entry("/admin/", "Admin", "shield")
# Pages that live elsewhere but that people find through an entry of the menu.
_ELSEWHERE = {"/accounts/": "/settings/"}
_STRANGER = (Entry("/", "Home", "home"), Entry("/docs/", "Docs", "book"))


def entries(*, path: str, is_signed_in: bool, is_operator: bool) -> list[Entry]:
    """The menu on the page at this path. The longest address that the path starts with is the current one."""
    shown = list(_ENTRIES if is_signed_in else _STRANGER)
    if is_operator:
        shown.append(_OPERATOR)
    for start, address in _ELSEWHERE.items():
        if path.startswith(start):
            path = address
    matching = [entry.address for entry in shown if path.startswith(entry.address)]
    current = max(matching, key=len, default="")
    return [Entry(entry.address, entry.label, entry.icon, entry.address == current) for entry in shown]
