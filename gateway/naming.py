"""Lines of the log: each says which request it is of, and none repeats a key, whoever wrote it and wherever it was."""

import logging
import uuid
from contextvars import ContextVar

from keys.secrets import masked

# The id of the answer's `x-request-id` and of its receipt. Tasks that a request starts inherit it.
served_now: ContextVar[uuid.UUID | None] = ContextVar("served_now", default=None)


class NamesRequest(logging.Filter):
    """Adds ` (request …)` to a line of a request that does not name it by itself, as `{request}` of the format."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = served_now.get()
        is_named = request_id is None or str(request_id) in record.getMessage()
        record.request = "" if is_named else f" (request {request_id})"
        return True


class MaskedFormatter(logging.Formatter):
    """Takes out what looks like a secret, also from a traceback, or from the address of a page that is not there."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))
