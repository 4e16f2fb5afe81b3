"""The form of a secret, its checksum and its digests.

A secret reads `tg_live_` or `tg_test_`, 32 random base62 characters (190 bits), and 6 base62 characters of
the CRC-32 of all before them. The checksum lets us refuse a typing error and scanners recognize a leaked
key without asking anyone. It protects nothing.

What is stored is an HMAC-SHA-256 under a pepper from KEY_PEPPERS. A secret of 190 random bits cannot be
guessed, so it needs no slow hash; a slow hash for each request would be a way to be attacked.
"""

import base64
import binascii
import hmac
import re
import secrets
import zlib
from functools import lru_cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

LIVE_PREFIX = "tg_live_"
TEST_PREFIX = "tg_test_"
LENGTH = len(LIVE_PREFIX) + 32 + 6

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Every two digits of base62: a checksum is computed for every request.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_CHARACTERS = 32
_CHECKSUM_CHARACTERS = 6
_SHOWN_CHARACTERS = 4
_MINIMUM_PEPPER_BYTES = 32
_ANYTHING_LIKE_IT = re.compile(r"tg_(?:live|test)_[0-9A-Za-z]+")
_LONG_RUN = re.compile(r"[0-9A-Za-z]{32,}")
_FORM = re.compile(r"tg_(?:live|test)_[0-9A-Za-z]{38}")


def generate(*, live: bool) -> str:
    """A new secret; `live` says that it is for production."""
    body = (LIVE_PREFIX if live else TEST_PREFIX) + "".join(
        secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS)
    )
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether this has the form of a secret and a right checksum. Costs microseconds, whatever is passed."""
    if len(secret) != LENGTH or _FORM.fullmatch(secret) is None:
        return False
    return _checksum(secret[:-_CHECKSUM_CHARACTERS]) == secret[-_CHECKSUM_CHARACTERS:]


def digest(secret: str, *, version: int) -> bytes:
    """The 32 bytes stored for the secret under the pepper of this version. KeyError where there is none."""
    return hmac.digest(dict(_parsed(tuple(settings.KEY_PEPPERS)))[version], secret.encode(), "sha256")


def digests(secret: str) -> list[tuple[int, bytes]]:
    """Pepper version and digest of the secret under every pepper; the first one signs new secrets."""
    encoded = secret.encode()
    peppers = _parsed(tuple(settings.KEY_PEPPERS))
    return [(version, hmac.digest(pepper, encoded, "sha256")) for version, pepper in peppers]


def current_digest(secret: str) -> bytes:
    """The digest under the pepper that signs new secrets."""
    signing = _signer(tuple(settings.KEY_PEPPERS)).copy()
    signing.update(secret.encode())
    return signing.digest()


def start_of(secret: str) -> str:
    """The prefix and the first characters, which pages show."""
    return secret[: len(LIVE_PREFIX) + _SHOWN_CHARACTERS]


def end_of(secret: str) -> str:
    """The last characters, which pages show."""
    return secret[-_SHOWN_CHARACTERS:]


def _checksum(body: str) -> str:
    rest, low = divmod(zlib.crc32(body.encode()), len(_PAIRS))
    high, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


@lru_cache(maxsize=4)  # By the setting's value, so that a changed setting is a different entry.
def _parsed(peppers: tuple[str, ...]) -> tuple[tuple[int, bytes], ...]:
    parsed: dict[int, bytes] = {}
    for position, entry in enumerate(peppers, start=1):
        version, _colon, encoded = entry.partition(":")
        try:
            number, pepper = int(version), base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            number, pepper = 0, b""
        if number < 1 or number in parsed or len(pepper) < _MINIMUM_PEPPER_BYTES:
            # The entry itself is a secret: say where it stands, not what it is.
            msg = (
                f"KEY_PEPPERS, entry {position}: write version:base64, with a version of its own from 1 up "
                f"and the base64 of at least {_MINIMUM_PEPPER_BYTES} random bytes"
            )
            raise ImproperlyConfigured(msg)
        parsed[number] = pepper
    if not parsed:
        msg = "KEY_PEPPERS is empty: write version:base64 of 32 random bytes: 1:$(openssl rand -base64 32)"
        raise ImproperlyConfigured(msg)
    return tuple(parsed.items())


@lru_cache(maxsize=4)
def _signer(peppers: tuple[str, ...]) -> hmac.HMAC:
    """What has taken in the newest pepper already: a digest is made for every request."""
    (_version, pepper), *_older = _parsed(peppers)
    return hmac.new(pepper, digestmod="sha256")


def masked(text: str) -> str:
    """The text without anything that looks like a secret: what others wrote may be repeated, a secret never.

    Also without what may be one whose beginning is mistyped or cut off: random characters of all three kinds.
    """
    if "tg_" in text:
        text = _ANYTHING_LIKE_IT.sub("tg_…", text)
    return text if len(text) < _RANDOM_CHARACTERS else _LONG_RUN.sub(_masked_if_random, text)


def _masked_if_random(run: re.Match[str]) -> str:
    kinds = (str.islower, str.isupper, str.isdigit)
    is_random = all(any(map(is_kind, run.group())) for is_kind in kinds)
    return "…" if is_random else run.group()
