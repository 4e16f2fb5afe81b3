"""Mail of embedded mode: kept as files under TOLLGATE_HOME and shown on a page to loopback only."""

import datetime as dt
import email
import email.policy
import ipaddress
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.http import HttpRequest

# A line that is nothing but a verification code, as allauth writes them: ABC-123 or ABCD-1234.
_CODE = re.compile(r"^\s*([A-Z0-9]{3,4}-?[A-Z0-9]{3,4})\s*$", re.MULTILINE)
_LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
# A proxy in front makes every stranger look like a neighbor; these headers give it away.
_FORWARDING = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")


class OutboxBackend(BaseEmailBackend):
    """Keeps each mail as one .eml file, named by the time it was sent."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        folder = outbox_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
            unfinished = folder / f"{name}.part"
            unfinished.write_bytes(message.message().as_bytes())
            # A reader sees the whole mail or none.
            unfinished.rename(folder / f"{name}.eml")
        return len(email_messages)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail of the outbox; `code` is the verification code in it, if there is one."""

    ident: str
    sent_at: dt.datetime
    to: str
    subject: str
    body: str
    code: str


def outbox_folder() -> Path:
    return settings.TOLLGATE_HOME / "outbox"


def newest(*, limit: int = 50) -> list[Mail]:
    """The latest mails, the newest first."""
    files = sorted(outbox_folder().glob("*.eml"), reverse=True)
    return [_read(file) for file in files[:limit]]


def is_local(request: HttpRequest) -> bool:
    """Whether the request was typed on this very machine: a loopback peer, no proxy, and a loopback host name.

    The name keeps out a page elsewhere whose own name was pointed at 127.0.0.1 (DNS rebinding).
    """
    try:
        peer = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    if not (mapped or peer).is_loopback or any(name in request.headers for name in _FORWARDING):
        return False
    host = request.headers.get("host", "")
    return re.sub(r":\d+$", "", host).lower() in _LOCAL_NAMES


def _read(file: Path) -> Mail:
    with file.open("rb") as opened:
        message = email.message_from_binary_file(opened, policy=email.policy.default)
    part = message.get_body(("plain", "html"))
    body = part.get_content() if part is not None else ""
    found = _CODE.search(body)
    return Mail(
        ident=file.stem,
        sent_at=dt.datetime.fromtimestamp(int(file.stem.partition("-")[0]) / 1e9, dt.UTC),
        to=str(message["To"]),
        subject=str(message["Subject"]),
        body=body.strip(),
        code=found.group(1) if found else "",
    )
