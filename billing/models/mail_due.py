"""What people must be told of by e-mail, kept with the row itself until the mail is out."""

from django.db import models


class MailDue(models.Model):
    """A row that may owe somebody an e-mail. See `billing.owed_mail`, which leases it to whoever sends it."""

    # From when on the e-mail may be sent; null: nothing is owed. A lease moves it into the future.
    mail_due_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True
