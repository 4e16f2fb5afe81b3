"""Mail of embedded mode: kept as files under TOLLGATE_HOME and shown on a page to loopback only."""

from django.conf import settings
from django.core.mail.backends.filebased import EmailBackend


class OutboxBackend(EmailBackend):
    """Django's file backend, in our own folder."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, file_path=str(settings.TOLLGATE_HOME / "outbox"), **kwargs)
