"""The PDF of a receipt: names in their own scripts, and what went back of the payment since."""

import datetime as dt
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from fontTools.ttLib import TTFont
from fpdf.fonts import TTFFont
from pypdf import PdfReader
from pytest_django import Settings

from accounts.models import Account
from billing import receipt_pdf
from billing.models import BillingDetails, Dispute, Receipt, Refund, TopUp
from billing.receipt_paper import BODY, Paper
from tests import factories
from tests.billing.test_billing_pages import make_topup, sign_in, text_of
from tests.billing.test_topping_up import finish, start

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9
_FONTS = configured.BASE_DIR / "node_modules"
_PLAIN = _FONTS / "dejavu-fonts-ttf/ttf/DejaVuSans.ttf"
_BOLD = _FONTS / "dejavu-fonts-ttf/ttf/DejaVuSans-Bold.ttf"
_DEVANAGARI = _FONTS / "@expo-google-fonts/noto-sans-devanagari/400Regular/NotoSansDevanagari_400Regular.ttf"


class ReadPaper(Paper):
    """Keeps what was written, line by line, from left to right."""

    def __init__(self, *, plain: Path) -> None:
        super().__init__(plain=plain, bold=_BOLD, more=[_DEVANAGARI])
        self.lines: list[list[str]] = []
        self.written_at = 0.0

    def cell(self, *args: Any, **kwargs: Any) -> bool:
        if self.get_y() != self.written_at:
            self.written_at = self.get_y()
            self.lines.append([])
        self.lines[-1].append(args[2])
        return super().cell(*args, **kwargs)


def write(text: str, *, width: float = 150, plain: Path = _PLAIN) -> ReadPaper:
    paper = ReadPaper(plain=plain)
    paper.add_page()
    paper.set_font(BODY, size=10)
    paper.write_name(text, width=width, line_height=5)
    return paper


def glyphs(paper: Paper) -> set[str]:
    """The names of the shapes that were drawn, of all fonts."""
    fonts = [font for font in paper.fonts.values() if isinstance(font, TTFFont)]
    return {glyph.glyph_name for font in fonts for glyph, _ in font.subset.items() if glyph}


def describe(account: Account, **details: str) -> None:
    BillingDetails.objects.update_or_create(account=account, defaults=details)


def text_of_pdf(receipt: Receipt) -> str:
    [page] = PdfReader(BytesIO(receipt_pdf.render(receipt=receipt))).pages
    return page.extract_text()


def dispute(topup: TopUp, *, status: str, closed_at: dt.datetime | None = None) -> None:
    gone_nanousd = 0 if status == "won" else 20 * USD
    Dispute.objects.create(
        account=topup.account,
        topup=topup,
        provider_dispute=f"dp_{status}",
        reason="fraudulent",
        status=status,
        amount_nanousd=25 * USD,
        frozen_nanousd=gone_nanousd,
        fee_nanousd=gone_nanousd // 4,
        opened_at=AT + dt.timedelta(days=9),
        closed_at=closed_at,
    )


def refund(topup: TopUp, *, status: str) -> None:
    Refund.objects.create(
        account=topup.account,
        topup=topup,
        reference=status,
        credit_nanousd=4 * USD,
        fee_nanousd=USD,
        status=status,
        reason="unused",
        created_at=AT,
        ended_at=None if status == "pending" else AT,
    )


@pytest.mark.django_db
def test_the_pdf_is_for_the_account_alone() -> None:
    account = factories.make_account()
    topup = make_topup(account)
    address = f"/billing/topups/{topup.pk}/receipt.pdf"
    response = sign_in(account).get(address)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/pdf"
    assert Receipt.objects.get().number in response["Content-Disposition"]
    assert response.content.startswith(b"%PDF-")
    assert sign_in(factories.make_account()).get(address).status_code == 404


@pytest.mark.django_db
def test_the_pdf_says_what_an_accountant_asks(settings: Settings) -> None:
    settings.SELLER_NAME, settings.SELLER_ADDRESS, settings.SELLER_TAX_ID = "Acme AI", "1 Road|Berlin", "DE1"
    account = factories.make_account()
    describe(account, company_name="Ada Ltd", address_line_1="2 Lane", country="United Kingdom", tax_id="GB2")
    topup = finish(start(account))
    text = text_of_pdf(topup.receipt)
    for said in (
        "R-2026-000001",
        "2026-03-01",
        "Acme AI",
        "1 Road",
        "Berlin",
        "DE1",
        "Ada Ltd",
        "2 Lane",
        "GB2",
    ):
        assert said in text
    for amount in ("20.00", "Fee (25 %)", "5.00", "25.00"):
        assert amount in text
    assert f"Payment reference: {topup.provider_reference}" in text
    assert "no money was taken" in text


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name",
    [
        "Zażółć gęślą jaźń",
        "Ελληνική Εταιρεία",
        "Львів Їжак",
        "Nguyễn Đức",
        "Ŝĉáł & <b>",
        "חברה לדוגמה",
        "شركة المثال",
        "บริษัท ตัวอย่าง",
        "उदाहरण",
        "Հայաստան",
    ],
)
def test_the_pdf_writes_names_of_many_languages(name: str) -> None:
    account = factories.make_account()
    describe(account, company_name=name)
    said = text_of_pdf(finish(start(account)).receipt)
    assert name in said
    assert "no font for" not in said


@pytest.mark.django_db
def test_a_letter_that_no_font_has_leaves_a_box_and_a_word_about_it() -> None:
    account = factories.make_account()
    describe(account, company_name="Müller 株式会社")
    said = text_of_pdf(finish(start(account)).receipt)
    assert "Müller □□□□" in said
    assert "□ is a letter that this installation has no font for" in said


@pytest.mark.django_db
def test_letters_that_the_font_lacks_come_from_the_operators_own(settings: Settings) -> None:
    fonts = settings.BASE_DIR / "node_modules/dejavu-fonts-ttf/ttf"
    # U+1D54A stands in for a script: the plain font lacks it, and another one of the package has it.
    settings.RECEIPT_FONTS = [str(fonts / "DejaVuMathTeXGyre.ttf")]
    account = factories.make_account()
    describe(account, company_name="Acme \U0001d5d4")
    assert "\U0001d5d4" in text_of_pdf(finish(start(account)).receipt)


@pytest.mark.django_db
def test_a_refund_stands_on_the_receipt() -> None:
    topup = finish(start(factories.make_account()))
    refund(topup, status="succeeded")
    text = text_of_pdf(topup.receipt)
    assert "-5.00" in text
    assert "Total after refunds" in text
    assert "20.00" in text
    client = sign_in(topup.account)
    assert "was given back to you" in text_of(client, f"/billing/topups/{topup.pk}/")
    assert "$5.00 given back" in text_of(client, "/billing/payments/")


@pytest.mark.parametrize(
    ("name", "from_left_to_right"),
    [
        ("חברה לדוגמה", ["חברה לדוגמה"]),
        ("שלום 45 עולם", ["עולם", "45", "שלום"]),
        ("ACME שלום 45 עולם Ltd", ["ACME", "עולם", "45", "שלום", "Ltd"]),
        ("תל אביב ACME 12", ["ACME 12", "תל אביב"]),
        ("شركة ١٢٣ شركة", ["شركة", "١٢٣", "شركة"]),
        ("\u202eACME\u202c שלום", ["שלום", "ACME"]),
    ],
)
def test_a_script_from_right_to_left_stands_in_its_order(name: str, from_left_to_right: list[str]) -> None:
    paper = write(name)
    [line] = paper.lines
    assert [piece.strip() for piece in line if piece.strip()] == from_left_to_right
    assert not paper.has_boxes


def test_a_long_name_goes_on_in_the_next_line_and_keeps_its_order() -> None:
    paper = write("שלום " * 6 + "ACME 45", width=45)
    first, *_, last = paper.lines
    assert first[0].strip() == " ".join(["שלום"] * len(first[0].split()))
    assert last[0] == "ACME 45"
    assert sum(piece.count("שלום") for line in paper.lines for piece in line) == 6


def test_a_word_that_is_longer_than_a_line_is_broken_but_not_before_a_mark() -> None:
    paper = write("e\u0301" * 60, width=45)
    assert len(paper.lines) > 1
    assert "".join(piece for line in paper.lines for piece in line) == "e\u0301" * 60
    assert all(line[0].startswith("e") for line in paper.lines)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        # The initial, the medial and the final form of the letter beh.
        ("\u0628\u0628\u0628", {"uniFE91", "uniFE92", "uniFE90"}),
        # With a vowel sign on each, which must not unjoin them.
        ("\u0628\u064e\u0628\u064e\u0628", {"uniFE91", "uniFE92", "uniFE90"}),
    ],
)
def test_arabic_letters_are_joined(name: str, shapes: set[str]) -> None:
    assert shapes <= glyphs(write(name))
    assert "uni0628" not in glyphs(write(name))


def test_devanagari_makes_its_conjuncts_and_its_half_forms() -> None:
    assert "uni0915094D0937" in glyphs(write("\u0915\u094d\u0937"))
    # The joiner in it asks for the half form, and must not be written in another font.
    assert {"uni0915094D", "uni0937"} <= glyphs(write("\u0915\u094d\u200d\u0937"))


@pytest.mark.parametrize(
    "name", ["株式会社", "주식회사", "বাংলা", "தமிழ்", "ខ្មែរ", "မြန်မာ", "සිංහල", "ᠮᠣᠩᠭᠣᠯ", "\U0001fae0"]
)
def test_every_letter_that_cannot_be_written_leaves_a_box(name: str) -> None:
    paper = write(f"Acme {name}")
    assert paper.has_boxes
    assert "□" in "".join(paper.lines[0])
    assert not set(name) & set("".join(paper.lines[0]))


def test_a_font_that_has_the_letters_and_cannot_join_them_is_not_trusted_with_them(tmp_path: Path) -> None:
    with TTFont(_PLAIN) as font:
        del font["GSUB"], font["GPOS"]
        font.save(tmp_path / "unjoined.ttf")
    paper = write("Acme شركة", plain=tmp_path / "unjoined.ttf")
    assert "".join(paper.lines[0]) == "Acme □□□□"
    assert paper.has_boxes


def test_signs_that_are_not_seen_leave_no_box() -> None:
    paper = write("Acme\u2060\u200b Ltd \u200f\u05e9")
    assert not paper.has_boxes


def test_a_party_without_a_name_leaves_no_trace() -> None:
    assert write("").lines == []


def test_a_name_is_not_taken_for_the_number_of_pages() -> None:
    paper = write("{nb}")
    [page] = PdfReader(BytesIO(paper.output())).pages
    assert page.extract_text() == "{nb}"


@pytest.mark.django_db
def test_the_page_of_a_receipt_has_the_name_as_it_was_entered() -> None:
    account = factories.make_account()
    describe(account, company_name="שלום 45 株式会社", city="बेंगलुरु")
    topup = finish(start(account))
    page = sign_in(account).get(f"/billing/topups/{topup.pk}/").content.decode()
    assert "<bdi>שלום 45 株式会社</bdi>" in page
    assert "<bdi>बेंगलुरु</bdi>" in page


@pytest.mark.django_db
def test_a_payment_that_a_bank_took_back_is_said_on_the_pdf() -> None:
    topup = finish(start(factories.make_account()))
    dispute(topup, status="lost", closed_at=AT + dt.timedelta(days=30))
    text = text_of_pdf(topup.receipt)
    assert "Disputed at a bank, and taken back on 2026-03-31 (UTC)" in text
    assert "-25.00" in text
    assert "Total after disputes" in text
    assert "0.00" in text.split("Total after disputes")[1]
    page = text_of(sign_in(topup.account), f"/billing/topups/{topup.pk}/")
    assert "Taken back by a bank" in page
    assert "-$25.00" in page


@pytest.mark.django_db
def test_refunds_and_disputes_are_taken_off_one_total() -> None:
    topup = finish(start(factories.make_account()))
    refund(topup, status="succeeded")
    dispute(topup, status="lost", closed_at=AT + dt.timedelta(days=30))
    said = text_of_pdf(topup.receipt).split("Total after refunds and disputes")[1]
    assert said.split()[0] == "-5.00"


@pytest.mark.django_db
def test_what_is_not_decided_is_said_and_taken_off_no_total() -> None:
    topup = finish(start(factories.make_account()))
    refund(topup, status="pending")
    dispute(topup, status="open")
    text = text_of_pdf(topup.receipt)
    assert "A refund of 5.00 of 2026-03-01 (UTC) is on its way." in text
    assert "A bank disputes 25.00 of this payment since 2026-03-10 (UTC). That is not decided." in text
    assert "Total after" not in text


@pytest.mark.django_db
def test_what_came_to_nothing_is_not_on_the_pdf() -> None:
    topup = finish(start(factories.make_account()))
    plain = text_of_pdf(topup.receipt)
    refund(topup, status="failed")
    dispute(topup, status="won", closed_at=AT + dt.timedelta(days=30))
    assert text_of_pdf(topup.receipt) == plain
