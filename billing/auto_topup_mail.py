"""The e-mails about auto top-up: why it is off and how to go on, and that the month's cap is reached."""

from django.urls import reverse

from accounts import mailing
from billing.models import AutoTopUp


def send(*, auto: AutoTopUp) -> None:
    """Tell the account's owners and admins how it stands. Raises mailing.SendingErrors."""
    if not auto.is_on and not auto.off_reason:
        # Somebody of the account has switched it off since, and knows.
        return
    mailing.send(
        subject="Auto top-up has reached its monthly cap" if auto.is_on else "Auto top-up is off",
        template="billing/mail/auto_topup.txt",
        context={
            "auto": auto,
            "account": auto.account,
            "page": mailing.public_url(reverse("billing:auto_topup")),
            "buy_url": mailing.public_url(reverse("billing:buy")),
        },
        to=mailing.recipients(account=auto.account),
    )
