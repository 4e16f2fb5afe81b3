"""What a sign-up makes: every new user gets an account of their own, on the basic plan."""

import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

from allauth.account.adapter import DefaultAccountAdapter
from django.contrib import messages
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from accounts import auditing, mailing
from accounts.models import Account, Membership, Plan, User

if TYPE_CHECKING:
    from django.forms import Form
    from django.http import HttpRequest

logger = logging.getLogger(__name__)

_LONGEST_NAME = 120


def open_account(*, user: User, at: dt.datetime, plan: Plan | None = None) -> Account:
    """Open an account owned by the user: on the given plan, else on `basic`. Its name is the user's e-mail."""
    with transaction.atomic():
        # An e-mail may be longer than a name.
        account = Account.objects.create(
            name=user.email[:_LONGEST_NAME], plan=plan or Plan.objects.get(slug=Plan.BASIC), created_at=at
        )
        Membership.objects.create(account=account, user=user, role=Membership.Role.OWNER, created_at=at)
        auditing.record(
            account=account,
            actor=user,
            action="account.opened",
            subject_type="account",
            subject_id=account.pk,
        )
    return account


class AccountAdapter(DefaultAccountAdapter):
    """Where allauth hands over: a new user, whose account is opened in the same transaction, and a sign-in."""

    def get_login_redirect_url(self, request: "HttpRequest") -> str:
        """The overview; the admin for an operator who has no account to look at."""
        user = request.user
        if isinstance(user, User) and user.is_staff and not user.memberships.exists():
            return reverse("admin:index")
        return str(super().get_login_redirect_url(request))

    def save_user(self, request: "HttpRequest", user: User, form: "Form", commit: bool = True) -> User:  # noqa: FBT001, FBT002
        with transaction.atomic():
            user = super().save_user(request, user, form, commit=commit)
            if commit:
                open_account(user=user, at=timezone.now())
        return user

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send, within EMAIL_TIMEOUT. A mail server that is away is said on the page, which goes on.

        It says so whether or not the address has an account: both are sent something.
        """
        if not connection.in_atomic_block:
            # Who waits for a mail server keeps no connection from the pool, or a few sign-ups would stop all pages.
            connection.close()
        try:
            super().send_mail(template_prefix, email, context)
        except mailing.SendingErrors:
            logger.exception("could not send %s", template_prefix)
            self.request.is_mail_missing = True
            messages.error(
                self.request,
                "The e-mail could not be sent: our mail server does not answer. Try again in a few minutes.",
            )

    def add_message(
        self,
        request: "HttpRequest",
        level: int,
        message_template: str | None = None,
        *rest: Any,
        **named: Any,
    ) -> None:
        """As allauth does, but nobody reads of a mail that was sent and could not be."""
        if getattr(request, "is_mail_missing", False) and str(message_template).endswith("_sent.txt"):
            return
        super().add_message(request, level, message_template, *rest, **named)
