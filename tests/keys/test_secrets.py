import base64
import hashlib
import hmac
import string

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from keys import secrets

FIRST = base64.b64encode(b"a" * 32).decode()
SECOND = base64.b64encode(b"b" * 32).decode()
BASE62 = string.digits + string.ascii_letters


@pytest.mark.parametrize(("live", "prefix"), [(True, "tg_live_"), (False, "tg_test_")])
def test_a_secret_has_the_promised_form(live: bool, prefix: str) -> None:
    secret = secrets.generate(live=live)
    assert secret.startswith(prefix)
    assert len(secret) == len(prefix) + 32 + 6
    assert set(secret.removeprefix(prefix)) <= set(BASE62)
    assert secrets.is_well_formed(secret)


def test_a_known_secret_stays_well_formed_forever() -> None:
    # Computed by hand once: a change of the checksum would lock every customer out.
    assert secrets.is_well_formed("tg_test_" + "A" * 32 + checksum("tg_test_" + "A" * 32))


def checksum(body: str) -> str:
    """The checksum, written a second time: base62 of CRC-32, the digits first, then capitals, then small letters."""
    import binascii

    alphabet = string.digits + string.ascii_uppercase + string.ascii_lowercase
    number, text = binascii.crc32(body.encode()), ""
    while len(text) < 6:
        text, number = alphabet[number % 62] + text, number // 62
    return text


def test_secrets_do_not_repeat() -> None:
    assert len({secrets.generate(live=True) for _ in range(1000)}) == 1000


@given(position=st.integers(0, 45), character=st.sampled_from(BASE62))
def test_one_wrong_character_is_noticed(position: int, character: str) -> None:
    secret = secrets.generate(live=True)
    changed = secret[:position] + character + secret[position + 1 :]
    assert secrets.is_well_formed(changed) == (changed == secret)


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: "",
        lambda secret: secret[:-1],
        lambda secret: secret + "0",
        lambda secret: secret + "\n",
        lambda secret: " " + secret,
        lambda secret: secret.replace("tg_live_", "tg_demo_"),
        lambda secret: secret.replace("tg_live_", "tg_test_"),
        lambda secret: secret[:10] + "é" + secret[11:],
        lambda secret: secret[:10] + "٣" + secret[11:],
        lambda secret: secret[:10] + "\udcff" + secret[11:],
        lambda secret: secret * 100_000,
    ],
)
def test_what_is_no_secret_is_refused(change: "type[str]") -> None:
    assert not secrets.is_well_formed(change(secrets.generate(live=True)))


@override_settings(KEY_PEPPERS=[f"7:{FIRST}", f"3:{SECOND}"])
def test_every_pepper_gives_a_digest_and_the_first_comes_first() -> None:
    expected = [
        (7, hmac.new(b"a" * 32, b"secret", hashlib.sha256).digest()),
        (3, hmac.new(b"b" * 32, b"secret", hashlib.sha256).digest()),
    ]
    assert secrets.digests("secret") == expected
    assert secrets.digest("secret", version=3) == expected[1][1]
    with pytest.raises(KeyError):
        secrets.digest("secret", version=1)


def test_a_changed_setting_counts_at_once() -> None:
    with override_settings(KEY_PEPPERS=[f"1:{FIRST}"]):
        before = secrets.digests("secret")
    with override_settings(KEY_PEPPERS=[f"1:{SECOND}"]):
        assert secrets.digests("secret") != before


@pytest.mark.parametrize(
    "peppers",
    [
        [],
        [FIRST],
        [f"x:{FIRST}"],
        [f"0:{FIRST}"],
        ["1:not base64!"],
        ["1:" + base64.b64encode(b"short").decode()],
        [f"1:{FIRST}", f"1:{SECOND}"],
    ],
)
def test_a_wrong_setting_is_named_without_repeating_it(peppers: list[str]) -> None:
    with override_settings(KEY_PEPPERS=peppers), pytest.raises(ImproperlyConfigured) as caught:
        secrets.digests("secret")
    assert "KEY_PEPPERS" in str(caught.value)
    assert not any(pepper in str(caught.value) for pepper in [FIRST, SECOND, "not base64!"])


def test_pages_show_the_beginning_and_the_end() -> None:
    secret = secrets.generate(live=True)
    assert secrets.start_of(secret) == secret[:12]
    assert secrets.end_of(secret) == secret[-4:]


def test_a_secret_is_masked_in_any_text_also_if_its_beginning_is_mistyped() -> None:
    secret = secrets.generate(live=True)

    for typed in (secret, secret[:-1], f"x{secret}y", secret[1:], secret[8:], "TG" + secret[2:], secret[:20]):
        assert secret[10:20] not in secrets.masked(f"the model {typed!r} is unknown")


@pytest.mark.parametrize(
    "text", ["gpt-oss-120b", "a" * 64, "0123456789abcdef" * 4, "a model of mine", "CamelCase9" * 3]
)
def test_other_words_are_not_masked(text: str) -> None:
    assert secrets.masked(text) == text
