"""What kind of body a request says it has: JSON in UTF-8, as it is. Anything else is refused before it is read."""

from collections.abc import Mapping

from gateway.errors import unsupported_media

_PLAIN = frozenset({b"", b"identity"})
_UTF_8 = frozenset({b"", b"utf-8", b"utf8", b"us-ascii"})


def judge_media(headers: Mapping[bytes, bytes]) -> None:
    """Raises Refusal for a compressed body, which may be a bomb, and for another charset, which we would misread."""
    if headers.get(b"content-encoding", b"").strip().lower() not in _PLAIN:
        raise unsupported_media("it is compressed. Send it without `Content-Encoding`")
    content_type = headers.get(b"content-type", b"").lower()
    if b"charset" in content_type and _charset(content_type) not in _UTF_8:
        raise unsupported_media("its charset is not UTF-8. Send it as `application/json`")


def _charset(content_type: bytes) -> bytes:
    for parameter in content_type.split(b";")[1:]:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset":
            return value.strip().strip(b'"')
    return b""
