"""Settings that are refused at the start."""

import os
import subprocess
import sys
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from pytest_django import Settings

from config import checks
from config.home import ROOT


@pytest.mark.parametrize("share", ["-0.1", "1.01", "25", "NaN", "Infinity"])
def test_a_share_of_the_fee_that_is_none_is_refused(settings: Settings, share: str) -> None:
    settings.REFUND_FEE_SHARE = Decimal(share)
    assert [found.id for found in checks.refunds_and_receipts_make_sense(None)] == ["tollgate.E007"]


def test_a_font_that_is_missing_is_refused_by_its_path(settings: Settings) -> None:
    settings.RECEIPT_FONTS = ["/nowhere/font.ttf"]
    [found] = checks.refunds_and_receipts_make_sense(None)
    assert (found.id, "/nowhere/font.ttf" in found.msg) == ("tollgate.E008", True)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 300.0, float("nan")])
def test_a_wait_for_mail_that_makes_no_sense_is_refused(settings: Settings, seconds: float) -> None:
    settings.EMAIL_TIMEOUT = seconds
    [found] = checks.mail_servers_are_waited_for_and_not_for_ever(None)
    assert found.id == "tollgate.E012"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 10),
        ({"EMAIL_TIMEOUT_S": "3.5"}, 3.5),
        (
            {"EMAIL_URL": "smtp+tls://me:pass%40word@mail.example.com:587?timeout=7", "EMAIL_TIMEOUT_S": "3"},
            7,
        ),
        ({"EMAIL_URL": "smtp://mail.example.com:25?timeout=0.5"}, 0.5),
    ],
)
def test_mail_is_waited_for_as_long_as_the_address_or_the_variable_says(
    given: dict[str, str], seconds: float
) -> None:
    smtp = "django.core.mail.backends.smtp.EmailBackend"
    code = f"from django.core import mail; print(mail.get_connection('{smtp}').timeout)"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EMAIL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ | given,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == seconds


@pytest.mark.parametrize(
    "given",
    [{"EMAIL_TIMEOUT_S": "nan"}, {"EMAIL_TIMEOUT_S": "soon"}, {"EMAIL_URL": "smtp://mail:25?timeout=soon"}],
)
def test_a_wait_for_mail_that_is_no_number_is_refused_by_its_check(given: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--tag", "security"],
        env=os.environ | given,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "(tollgate.E012) EMAIL_TIMEOUT_S, or ?timeout= of EMAIL_URL, is nan." in done.stderr


def test_what_makes_sense_is_accepted(settings: Settings) -> None:
    settings.RECEIPT_FONTS = [str(settings.BASE_DIR / "node_modules/dejavu-fonts-ttf/ttf/DejaVuSerif.ttf")]
    assert checks.refunds_and_receipts_make_sense(None) == []


@pytest.mark.parametrize(
    ("slugs", "said", "hint"),
    [
        (["sandbox", "Stripe"], "TOPUP_PROVIDERS names 'Stripe'", "Write stripe."),
        (["stripe", " sandbox"], "TOPUP_PROVIDERS names ' sandbox'", "Write sandbox."),
        (["paypal"], "TOPUP_PROVIDERS names 'paypal'", "Known are: sandbox, stripe."),
    ],
)
def test_a_provider_that_is_none_is_refused_by_its_name(
    settings: Settings, slugs: list[str], said: str, hint: str
) -> None:
    settings.TOPUP_PROVIDERS = slugs
    [found] = checks.providers_are_known(None)
    assert (found.id, said in found.msg, found.hint) == ("tollgate.E009", True, hint)


def test_limits_that_make_no_sense_are_refused(settings: Settings) -> None:
    settings.TOPUP_MINIMUM_USD = Decimal("NaN")
    [found] = checks.amounts_make_sense(None)
    assert (found.id, "TOPUP_MINIMUM_USD must be" in found.msg) == ("tollgate.E010", True)


@pytest.mark.parametrize("days", [-1, 3651])
def test_a_notice_of_no_number_of_days_is_refused(settings: Settings, days: int) -> None:
    settings.PROMOTION_NOTICE_DAYS = days
    assert [found.id for found in checks.amounts_make_sense(None)] == ["tollgate.E011"]


def test_the_settings_as_they_come_are_accepted() -> None:
    assert checks.providers_are_known(None) == checks.amounts_make_sense(None) == []


def test_a_check_refuses_a_start_and_not_only_a_deployment(settings: Settings) -> None:
    settings.TOPUP_PROVIDERS = ["Stripe"]
    with pytest.raises(SystemCheckError, match="Write stripe"):
        call_command("check")
