"""The name of a request in the logs: every line that is written while one is served says whose it is."""

import logging
import uuid
from contextvars import ContextVar

# The id of the answer's `x-request-id` and of its receipt. Tasks that a request starts inherit it.
served_now: ContextVar[uuid.UUID | None] = ContextVar("served_now", default=None)


class NamesRequest(logging.Filter):
    """Adds ` (request …)` to a line of a request that does not name it by itself, as `{request}` of the format."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = served_now.get()
        is_named = request_id is None or str(request_id) in record.getMessage()
        record.request = "" if is_named else f" (request {request_id})"
        return True
