"""`manage.py create_account EMAIL [--plan SLUG] [--credit USD]`: an account for somebody, made by the operator."""

from decimal import Decimal, InvalidOperation
from typing import Any

from allauth.account.models import EmailAddress
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone

from accounts import signing_up
from accounts.models import Plan, User
from billing import crediting
from billing.topping_up import MOST_USD
from catalog.money import nano_from_usd, usd_from_nano


class Command(BaseCommand):
    help = "Make a user with a verified e-mail, and an account that the user owns."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email", metavar="EMAIL")
        parser.add_argument("--plan", metavar="SLUG", default=Plan.BASIC, help="default: %(default)s")
        parser.add_argument(
            "--credit", metavar="USD", default="0", help="credit to grant, such as 25 or 12.50"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        email, plan, credit_nanousd = (
            _email(options["email"]),
            _plan(options["plan"]),
            _nano(options["credit"]),
        )
        at = timezone.now()
        with transaction.atomic():
            user = User.objects.create_user(email, None)
            EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
            account = signing_up.open_account(user=user, plan=plan, at=at)
            if credit_nanousd:
                crediting.grant(
                    account=account,
                    amount_nanousd=credit_nanousd,
                    reason="with the account",
                    actor=None,
                    at=at,
                    reference=f"create_account:{account.pk}",
                )
        self.stdout.write(f"Account {account.pk} for {user.email} on the plan {plan.slug}.")
        if credit_nanousd:
            self.stdout.write(f"Credit: ${usd_from_nano(credit_nanousd):,.2f}.")
            if not plan.spends_credits:
                self.stdout.write(
                    f"The plan {plan.slug} does not spend credits: change it, or the credit waits."
                )
        self.stdout.write(
            "No password is set: the user sets one with “Forgot your password?” on the sign-in page."
        )


def _email(text: str) -> str:
    try:
        validate_email(text)
    except ValidationError as error:
        msg = f"{text} is not an e-mail address."
        raise CommandError(msg) from error
    if User.objects.filter(email__iexact=text).exists():
        msg = f"{text} already has a user."
        raise CommandError(msg)
    return text


def _plan(slug: str) -> Plan:
    plan = Plan.objects.filter(slug=slug).first()
    if plan is None:
        known = ", ".join(Plan.objects.order_by("id").values_list("slug", flat=True))
        msg = f"There is no plan {slug}. There are: {known}."
        raise CommandError(msg)
    return plan


def _nano(text: str) -> int:
    msg = f"--credit {text}: give an amount of USD in whole cents, from 0 to {MOST_USD}, such as 25 or 12.50."
    try:
        usd = Decimal(text)
    except InvalidOperation as error:
        raise CommandError(msg) from error
    if not usd.is_finite() or not 0 <= usd <= MOST_USD or usd != round(usd, 2):
        raise CommandError(msg)
    return nano_from_usd(usd)
