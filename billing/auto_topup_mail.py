"""The e-mails about auto top-up: why nothing is bought, and how to go on."""

import datetime as dt

from django.urls import reverse

from accounts import mailing
from billing import auto_topping_up
from billing.models import AutoTopUp
from billing.providers import offering


def send(*, auto: AutoTopUp, at: dt.datetime) -> None:
    """Tell the account's owners and admins how it stands now. Raises mailing.SendingErrors.

    What has ended since the e-mail became due is not told any more: the purchase that was paid after all, the cap
    that was raised, and what somebody of the account has switched off, and knows.
    """
    waiting = auto_topping_up.waiting(account_id=auto.account_id)
    if waiting is not None and waiting.pk == auto.told_topup_id:
        subject = "A purchase of auto top-up is not decided yet"
    elif auto.off_reason:
        subject = "Auto top-up is off"
    elif auto.is_on and auto_topping_up.is_capped(auto=auto, at=at):
        subject = "Auto top-up has reached its monthly cap"
    else:
        return
    provider = offering.named(slug=waiting.provider) if waiting else None
    mailing.send(
        subject=subject,
        template="billing/mail/auto_topup.txt",
        context={
            "auto": auto,
            "account": auto.account,
            "waiting": waiting,
            "provider_name": provider.name if provider else "",
            "receipt": mailing.public_url(reverse("billing:receipt", args=[waiting.pk])) if waiting else "",
            "page": mailing.public_url(reverse("billing:auto_topup")),
            "buy_url": mailing.public_url(reverse("billing:buy")),
        },
        to=mailing.recipients(account=auto.account),
    )
