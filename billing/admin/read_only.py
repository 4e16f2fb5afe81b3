"""What every page of money in the admin shares: amounts as people read them, and nothing to edit."""

from typing import Any

from catalog.money import usd_text as usd

__all__ = ["ReadOnly", "usd"]


class ReadOnly:
    """Money changes only through the functions that keep the books."""

    def has_add_permission(self, *_: Any) -> bool:
        return False

    def has_change_permission(self, *_: Any) -> bool:
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        return False
