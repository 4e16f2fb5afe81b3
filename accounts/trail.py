"""The audit trail as people read it: in pages, the newest first."""

from dataclasses import dataclass

from accounts.models import Account, AuditEvent

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class TrailPage:
    """Events, the newest first; the ids to ask for the page before and after, None where there is none."""

    events: list[AuditEvent]
    newer_than: int | None
    older_than: int | None


def read(*, account: Account, older_than: int | None = None, newer_than: int | None = None) -> TrailPage:
    """The page of the account's events next to an id: the older side, or the newer. Without one, the newest page."""
    events = AuditEvent.objects.filter(account=account).select_related("actor")
    if newer_than is not None:
        nearest = list(events.filter(id__gt=newer_than).order_by("id")[: PAGE_SIZE + 1])
        page, has_newer, has_older = nearest[:PAGE_SIZE][::-1], len(nearest) > PAGE_SIZE, True
    else:
        older = events if older_than is None else events.filter(id__lt=older_than)
        latest = list(older.order_by("-id")[: PAGE_SIZE + 1])
        page, has_newer, has_older = latest[:PAGE_SIZE], older_than is not None, len(latest) > PAGE_SIZE
    return TrailPage(
        events=page,
        newer_than=page[0].pk if page and has_newer else None,
        older_than=page[-1].pk if page and has_older else None,
    )
