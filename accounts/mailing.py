"""E-mails about an account: to whom, from where, and how they leave. Sent outside every transaction."""

import smtplib

from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string

from accounts.models import Account, Membership

# What sending can raise: SMTP's own errors, and the network's.
SendingErrors = (smtplib.SMTPException, OSError)


def public_url(path: str = "") -> str:
    """An absolute address of ours for an e-mail, which has no request to take it from."""
    if settings.PUBLIC_URL or settings.TOLLGATE_URL:
        return f"{settings.PUBLIC_URL or settings.TOLLGATE_URL}{path}"
    named = [host.lstrip(".") for host in settings.ALLOWED_HOSTS if host != "*"]
    scheme = "https" if settings.HTTPS else "http"
    return f"{scheme}://{named[0] if named else 'localhost'}{path}"


def recipients(*, account: Account) -> list[str]:
    """The owners and admins of the account who can still sign in."""
    responsible = account.memberships.filter(
        role__in=[Membership.Role.OWNER, Membership.Role.ADMIN], user__is_active=True
    )
    return list(responsible.order_by("pk").values_list("user__email", flat=True))


def send(
    *,
    subject: str,
    template: str,
    context: dict[str, object],
    to: list[str],
    attachment: tuple[str, bytes, str] | None = None,
) -> None:
    """Send a text rendered from a template, with an attachment (name, content, type). Raises SendingErrors."""
    if not to:
        return
    # A name with a line break in it must not become a header.
    message = EmailMessage(" ".join(subject.split()), render_to_string(template, context), to=to)
    if attachment is not None:
        message.attach(*attachment)
    message.send()
