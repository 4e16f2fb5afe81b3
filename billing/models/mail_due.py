"""What people must be told of by e-mail, kept with the row itself until the mail is out. See `billing.owed_mail`."""

from django.db import models


class MailDue(models.Model):
    """A row that may owe its account an e-mail."""

    # From when on the e-mail may be sent; null: nothing is owed. A lease moves it into the future.
    mail_due_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True


class OperatorsMailDue(models.Model):
    """A row that may owe the operators an e-mail; it goes on owing it while OPERATOR_EMAILS names nobody."""

    # As `MailDue.mail_due_at`; a date in the future: then, if nothing has happened until then.
    operators_mail_due_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True
