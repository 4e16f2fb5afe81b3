"""`manage.py issue_key EMAIL NAME`: a key from the command line, its secret alone on standard output."""

import argparse
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from accounts.models import Account, User
from keys import issuing
from keys.models import ApiKey


class Command(BaseCommand):
    help = "Make an API key for the account of a user and print its secret, which is shown this once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("email", help="The e-mail of a member of the account; becomes the key's owner.")
        parser.add_argument("name", help="What uses the key.")
        parser.add_argument(
            "--environment", choices=ApiKey.Environment.values, default=ApiKey.Environment.DEVELOPMENT.value
        )

    def handle(self, *_args: Any, email: str, name: str, environment: str, **_options: Any) -> None:
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            msg = f"Nobody has the e-mail {email}. Make an account first: manage.py create_account {email}"
            raise CommandError(msg)
        account = Account.objects.filter(memberships__user=user).order_by("memberships__id").first()
        if account is None:
            msg = f"{email} belongs to no account. Make one first: manage.py create_account {email}"
            raise CommandError(msg)
        try:
            issued = issuing.issue(
                account=account, actor=None, name=name, at=timezone.now(), environment=environment, owner=user
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        self.stderr.write(
            f"Key {issued.key.pk} “{issued.key.name}” of {account}. Its secret is not shown again:"
        )
        self.stdout.write(issued.secret)
