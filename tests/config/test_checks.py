"""Settings that are refused at the start."""

from decimal import Decimal

import pytest
from pytest_django import Settings

from config import checks


@pytest.mark.parametrize("share", ["-0.1", "1.01", "25"])
def test_a_share_of_the_fee_that_is_none_is_refused(settings: Settings, share: str) -> None:
    settings.REFUND_FEE_SHARE = Decimal(share)
    assert [found.id for found in checks.refunds_and_receipts_make_sense(None)] == ["tollgate.E007"]


def test_a_font_that_is_missing_is_refused_by_its_path(settings: Settings) -> None:
    settings.RECEIPT_FONTS = ["/nowhere/font.ttf"]
    [found] = checks.refunds_and_receipts_make_sense(None)
    assert (found.id, "/nowhere/font.ttf" in found.msg) == ("tollgate.E008", True)


def test_what_makes_sense_is_accepted(settings: Settings) -> None:
    settings.RECEIPT_FONTS = [str(settings.BASE_DIR / "node_modules/dejavu-fonts-ttf/ttf/DejaVuSerif.ttf")]
    assert checks.refunds_and_receipts_make_sense(None) == []
