"""The HTTP edge of a gateway that waits seconds for its readers where another waits half a minute."""

from config.http_protocol import StrictHttpProtocol

READER_LIMIT_S = 2.0


class HastyHttpProtocol(StrictHttpProtocol):
    reader_timeout_s = READER_LIMIT_S
