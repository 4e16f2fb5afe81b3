"""Filters whose choices are words of the thing, where Django's say "Empty"."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin


def by_presence(*, title: str, absent: str, present: str) -> type[admin.EmptyFieldListFilter]:
    """A filter by whether a field has a value, for `list_filter`."""

    class ByPresence(admin.EmptyFieldListFilter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.title = title

        def choices(self, changelist: Any) -> Iterator[Any]:
            for choice, words in zip(super().choices(changelist), ("All", absent, present), strict=True):
                yield {**choice, "display": words}

    return ByPresence
