"""A receipt as a PDF: one page, the same bytes' worth of facts as the receipt's own page."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import TTFFont

from billing.models import Receipt, Refund
from billing.providers.sandbox import SANDBOX
from catalog.money import usd_from_nano

_FONTS = Path("node_modules/dejavu-fonts-ttf/ttf")
_MARGIN_MM = 20
_LINE_MM = 5.5
_AMOUNT_MM = 40
_BOX = "\u25a1"


def render(*, receipt: Receipt, refunds: Sequence[Refund]) -> bytes:
    """The PDF of a receipt with what was given back of it since.

    Letters that the built-in font lacks are taken from RECEIPT_FONTS, in its order.
    """
    pdf = _paper(receipt)
    _head(pdf, receipt)
    if receipt.topup.provider == SANDBOX.slug:
        _boxed(pdf, "Sandbox: no money was taken. This is not a proof of payment.")
    _parties(pdf, receipt)
    _amounts(pdf, receipt, refunds)
    _payment(pdf, receipt)
    return bytes(pdf.output())


def file_name(receipt: Receipt) -> str:
    """What the file is called where it is saved."""
    return f"receipt-{receipt.number}.pdf"


def _paper(receipt: Receipt) -> FPDF:
    pdf = FPDF(format="A4")
    # Otherwise the same receipt would be another file each time.
    pdf.set_creation_date(receipt.issued_at)
    pdf.set_title(f"Receipt {receipt.number}")
    pdf.set_author(receipt.seller["name"])
    pdf.set_margin(_MARGIN_MM)
    fonts = settings.BASE_DIR / _FONTS
    pdf.add_font("body", fname=fonts / "DejaVuSans.ttf")
    pdf.add_font("body", style="B", fname=fonts / "DejaVuSans-Bold.ttf")
    for number, path in enumerate(settings.RECEIPT_FONTS):
        pdf.add_font(f"more{number}", fname=path)
    pdf.set_fallback_fonts(
        [f"more{number}" for number in range(len(settings.RECEIPT_FONTS))], exact_match=False
    )
    pdf.add_page()
    pdf.set_font("body", size=10)
    return pdf


def _head(pdf: FPDF, receipt: Receipt) -> None:
    pdf.set_font("body", style="B", size=20)
    _line(pdf, "Receipt", height=12)
    pdf.set_font("body", size=10)
    _line(pdf, f"Number: {receipt.number}")
    _line(pdf, f"Date: {_date(receipt.issued_at)}")
    pdf.ln(_LINE_MM)


def _boxed(pdf: FPDF, text: str) -> None:
    pdf.set_font("body", style="B", size=10)
    pdf.multi_cell(0, 10, text, border=1, align="C", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_font("body", size=10)
    pdf.ln(_LINE_MM)


def _parties(pdf: FPDF, receipt: Receipt) -> None:
    """Seller and buyer side by side."""
    top, width = pdf.get_y(), pdf.epw / 2
    lowest = top
    for column, (title, party) in enumerate((("From", receipt.seller), ("To", receipt.buyer))):
        left = _MARGIN_MM + column * width
        tax_id = [f"Tax id: {party['tax_id']}"] if party["tax_id"] else []
        pdf.set_xy(left, top)
        pdf.set_font("body", style="B", size=10)
        pdf.multi_cell(width - 5, _LINE_MM, title, align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)
        pdf.set_font("body", size=10)
        for line in [party["name"], *party["address"], *tax_id]:
            pdf.multi_cell(
                width - 5, _LINE_MM, _printable(pdf, line), align="L", new_x=XPos.LEFT, new_y=YPos.NEXT
            )
        lowest = max(lowest, pdf.get_y())
    pdf.set_xy(_MARGIN_MM, lowest)
    pdf.ln(2 * _LINE_MM)


def _amounts(pdf: FPDF, receipt: Receipt, refunds: Sequence[Refund]) -> None:
    _row(pdf, "What", "USD", is_bold=True)
    _row(pdf, "Prepaid credit for API usage", _usd(receipt.credit_nanousd))
    _row(pdf, f"Fee ({receipt.topup.fee_percent} %)", _usd(receipt.fee_nanousd))
    _row(pdf, "Total", _usd(receipt.total_nanousd), is_bold=True)
    given_back = 0
    for refund in refunds:
        given_back += refund.total_nanousd
        _row(pdf, f"Refund of {_date(refund.created_at)}", f"-{_usd(refund.total_nanousd)}")
    if refunds:
        _row(pdf, "Total after refunds", _usd(receipt.total_nanousd - given_back), is_bold=True)
    pdf.ln(2 * _LINE_MM)


def _payment(pdf: FPDF, receipt: Receipt) -> None:
    _line(pdf, f"Paid on {_date(receipt.issued_at)} through {receipt.provider_name}.")
    _line(pdf, f"Payment reference: {receipt.payment}")
    parties = [receipt.seller, receipt.buyer]
    names = "".join(line for party in parties for line in [party["name"], *party["address"], party["tax_id"]])
    if _BOX in _printable(pdf, names):
        pdf.ln(_LINE_MM)
        _line(
            pdf,
            f"{_BOX} is a letter that this installation has no font for; the page of this receipt has it.",
        )


def _row(pdf: FPDF, text: str, amount: str, *, is_bold: bool = False) -> None:
    pdf.set_font("body", style="B" if is_bold else "", size=10)
    pdf.cell(pdf.epw - _AMOUNT_MM, 8, text, border="B")
    pdf.cell(_AMOUNT_MM, 8, amount, border="B", align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_font("body", size=10)


def _line(pdf: FPDF, text: str, *, height: float = _LINE_MM) -> None:
    pdf.multi_cell(0, height, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _printable(pdf: FPDF, text: str) -> str:
    """The text with a box for each letter that no font has; without it, the letter would vanish unseen."""
    known = set[int]().union(*(font.cmap for font in pdf.fonts.values() if isinstance(font, TTFFont)))
    return "".join(letter if ord(letter) in known else _BOX for letter in text)


def _date(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d} (UTC)"


def _usd(amount_nanousd: int) -> str:
    return f"{usd_from_nano(amount_nanousd):,.2f}"
