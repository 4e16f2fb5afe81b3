"""A page of rows, and where it goes on: shared by every table of billing."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

from accounts.acting import AccountRequest


def older_than(request: HttpRequest) -> int | None:
    given = request.GET.get("older_than", "")
    # More digits than a bigint has are nobody's id.
    return int(given) if given.isascii() and given.isdigit() and len(given) < len(str(2**63)) else None


def page_or_fragment(
    request: AccountRequest, page: str, fragment: str, context: dict[str, Any]
) -> HttpResponse:
    response = render(request, fragment if request.htmx else page, context)
    patch_vary_headers(response, ["HX-Request"])
    return response
