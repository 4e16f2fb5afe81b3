"""A receipt as a PDF: one page, the same bytes' worth of facts as the receipt's own page."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from fpdf.enums import XPos, YPos

from billing.models import Dispute, Receipt, Refund
from billing.providers.sandbox import SANDBOX
from billing.receipt_paper import BODY, BOX, Paper
from catalog.money import usd_from_nano

_FONTS = Path("node_modules")
_PLAIN = _FONTS / "dejavu-fonts-ttf/ttf/DejaVuSans.ttf"
_BOLD = _FONTS / "dejavu-fonts-ttf/ttf/DejaVuSans-Bold.ttf"
# Of the scripts that DejaVu lacks, those that many millions write and whose fonts are small.
_MORE = (
    _FONTS / "@expo-google-fonts/noto-sans-thai/400Regular/NotoSansThai_400Regular.ttf",
    _FONTS / "@expo-google-fonts/noto-sans-devanagari/400Regular/NotoSansDevanagari_400Regular.ttf",
)
_MARGIN_MM = 20
_LINE_MM = 5.5
_AMOUNT_MM = 40


def render(*, receipt: Receipt) -> bytes:
    """The PDF of a receipt, with what was given back or taken back of it until now.

    Letters that the built-in fonts lack are taken from RECEIPT_FONTS, in its order.
    """
    refunds = list(Refund.objects.filter(topup=receipt.topup_id).order_by("pk"))
    disputes = list(Dispute.objects.filter(topup=receipt.topup_id).order_by("pk"))
    pdf = _paper(receipt)
    _head(pdf, receipt)
    if receipt.topup.provider == SANDBOX.slug:
        _boxed(pdf, "Sandbox: no money was taken. This is not a proof of payment.")
    _parties(pdf, receipt)
    _amounts(pdf, receipt, refunds, disputes)
    _undecided(pdf, refunds, disputes)
    _payment(pdf, receipt)
    return bytes(pdf.output())


def file_name(receipt: Receipt) -> str:
    """What the file is called where it is saved."""
    return f"receipt-{receipt.number}.pdf"


def _paper(receipt: Receipt) -> Paper:
    more = [*(settings.BASE_DIR / path for path in _MORE), *map(Path, settings.RECEIPT_FONTS)]
    pdf = Paper(plain=settings.BASE_DIR / _PLAIN, bold=settings.BASE_DIR / _BOLD, more=more)
    # Otherwise the same receipt would be another file each time.
    pdf.set_creation_date(receipt.issued_at)
    pdf.set_title(f"Receipt {receipt.number}")
    pdf.set_author(receipt.seller["name"])
    pdf.set_margin(_MARGIN_MM)
    pdf.add_page()
    pdf.set_font(BODY, size=10)
    return pdf


def _head(pdf: Paper, receipt: Receipt) -> None:
    pdf.set_font(BODY, style="B", size=20)
    _line(pdf, "Receipt", height=12)
    pdf.set_font(BODY, size=10)
    _line(pdf, f"Number: {receipt.number}")
    _line(pdf, f"Date: {_date(receipt.issued_at)}")
    pdf.ln(_LINE_MM)


def _boxed(pdf: Paper, text: str) -> None:
    pdf.set_font(BODY, style="B", size=10)
    pdf.multi_cell(0, 10, text, border=1, align="C", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_font(BODY, size=10)
    pdf.ln(_LINE_MM)


def _parties(pdf: Paper, receipt: Receipt) -> None:
    """Seller and buyer side by side."""
    top, width = pdf.get_y(), pdf.epw / 2
    lowest = top
    for column, (title, party) in enumerate((("From", receipt.seller), ("To", receipt.buyer))):
        left = _MARGIN_MM + column * width
        tax_id = [f"Tax id: {party['tax_id']}"] if party["tax_id"] else []
        pdf.set_xy(left, top)
        pdf.set_font(BODY, style="B", size=10)
        pdf.multi_cell(width - 5, _LINE_MM, title, align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)
        pdf.set_font(BODY, size=10)
        for line in [party["name"], *party["address"], *tax_id]:
            pdf.write_name(line, width=width - 5, line_height=_LINE_MM)
        lowest = max(lowest, pdf.get_y())
    pdf.set_xy(_MARGIN_MM, lowest)
    pdf.ln(2 * _LINE_MM)


def _amounts(pdf: Paper, receipt: Receipt, refunds: Sequence[Refund], disputes: Sequence[Dispute]) -> None:
    _row(pdf, "What", "USD", is_bold=True)
    _row(pdf, "Prepaid credit for API usage", _usd(receipt.credit_nanousd))
    _row(pdf, f"Fee ({receipt.topup.fee_percent} %)", _usd(receipt.fee_nanousd))
    _row(pdf, "Total", _usd(receipt.total_nanousd), is_bold=True)
    gone = [
        (f"Refund of {_date(refund.created_at)}", refund.total_nanousd)
        for refund in refunds
        if refund.status == Refund.Status.SUCCEEDED
    ]
    lost = [
        (f"Disputed at a bank, and taken back on {_date(dispute.closed_at)}", dispute.amount_nanousd)
        for dispute in disputes
        if dispute.status == Dispute.Status.LOST and dispute.closed_at
    ]
    for text, amount_nanousd in [*gone, *lost]:
        _row(pdf, text, f"-{_usd(amount_nanousd)}")
    if gone or lost:
        why = " and ".join(word for word, rows in (("refunds", gone), ("disputes", lost)) if rows)
        left_nanousd = receipt.total_nanousd - sum(amount_nanousd for _, amount_nanousd in [*gone, *lost])
        _row(pdf, f"Total after {why}", _usd(left_nanousd), is_bold=True)
    pdf.ln(_LINE_MM)


def _undecided(pdf: Paper, refunds: Sequence[Refund], disputes: Sequence[Dispute]) -> None:
    """What may still go back, and is in no total."""
    for refund in refunds:
        if refund.status == Refund.Status.PENDING:
            _line(
                pdf, f"A refund of {_usd(refund.total_nanousd)} of {_date(refund.created_at)} is on its way."
            )
    for dispute in disputes:
        if dispute.status == Dispute.Status.OPEN:
            since = f"A bank disputes {_usd(dispute.amount_nanousd)} of this payment since"
            _line(pdf, f"{since} {_date(dispute.opened_at)}. That is not decided.")
    pdf.ln(_LINE_MM)


def _payment(pdf: Paper, receipt: Receipt) -> None:
    _line(pdf, f"Paid on {_date(receipt.issued_at)} through {receipt.provider_name}.")
    _line(pdf, f"Payment reference: {receipt.payment}")
    if pdf.has_boxes:
        pdf.ln(_LINE_MM)
        _line(
            pdf, f"{BOX} is a letter that this installation has no font for; the page of this receipt has it."
        )


def _row(pdf: Paper, text: str, amount: str, *, is_bold: bool = False) -> None:
    pdf.set_font(BODY, style="B" if is_bold else "", size=10)
    pdf.cell(pdf.epw - _AMOUNT_MM, 8, text, border="B")
    pdf.cell(_AMOUNT_MM, 8, amount, border="B", align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_font(BODY, size=10)


def _line(pdf: Paper, text: str, *, height: float = _LINE_MM) -> None:
    pdf.multi_cell(0, height, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _date(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d} (UTC)"


def _usd(amount_nanousd: int) -> str:
    return f"{usd_from_nano(amount_nanousd):,.2f}"
