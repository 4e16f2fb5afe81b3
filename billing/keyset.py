"""Where a page of rows goes on: the id that its address names."""

from django.http import HttpRequest


def older_than(request: HttpRequest) -> int | None:
    """The id of the address, or None: the first page, also where it names nonsense."""
    given = request.GET.get("older_than", "")
    # More digits than a bigint has are nobody's id.
    return int(given) if given.isascii() and given.isdigit() and len(given) < len(str(2**63)) else None
