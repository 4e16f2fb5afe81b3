"""`manage.py seed_catalogue`: the providers, models and prices that ship with Tollgate."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from catalog import seeding
from catalog.models import Model


class Command(BaseCommand):
    help = "Add what is missing of the catalogue that ships with Tollgate. What an operator changed stays."

    def handle(self, *args: Any, **options: Any) -> None:
        seeding.seed(at=timezone.now())
        if options["verbosity"]:
            self.stdout.write(f"catalogue: {Model.objects.count()} models")
