"""Paper on which a name stands as it was entered, whatever script it is in.

HarfBuzz shapes the letters. The PDF library gives a line one direction and goes through it: in an English line, a
Hebrew street with a number in it would come out wrong. So a line is cut into pieces of one font, script and direction
here, and they are put where the Unicode Bidirectional Algorithm wants them.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fontTools.unicodedata import ot_tags_from_script, script
from fpdf import FPDF
from fpdf.bidi import BidiParagraph
from fpdf.fonts import TTFFont
from fpdf.line_break import Fragment

BODY = "body"
# Stands for a letter that no font has, or whose script no font knows how to shape.
BOX = "\u25a1"
# Their letters stand side by side as they are. Of any other, a font must say how its letters join, or where marks go.
_SIMPLE_SCRIPTS = frozenset(
    ("Latn", "Grek", "Cyrl", "Armn", "Geor", "Copt", "Ethi", "Cans", "Cher", "Lisu")
) | {"Hani", "Hira", "Kana", "Bopo", "Hang", "Yiii"}
# Of every script: digits, punctuation, and what stands on the letter before it.
_SHARED = frozenset(["Zyyy", "Zinh"])
# They order letters and are not seen themselves: their work is done when the levels are known.
_ORDERING = frozenset(["LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"])


@dataclass(frozen=True, slots=True)
class _Letter:
    text: str
    font: str
    script: str
    # Of the Unicode Bidirectional Algorithm: odd is from right to left.
    level: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Letters of a line that are shaped together: in one font, of one script, in one direction."""

    text: str
    font: str
    level: int


class Paper(FPDF):
    """An A4 page with a plain and a bold font for our own words, and more fonts for the names of others."""

    def __init__(self, *, plain: Path, bold: Path, more: Sequence[Path]) -> None:
        super().__init__(format="A4")
        self.has_boxes = False
        self._more = list(more)
        self._scripts: dict[str, frozenset[str]] = {}
        self._add(BODY, plain)
        self.add_font(BODY, style="B", fname=bold)

    def write_name(self, text: str, *, width: float, line_height: float) -> None:
        """Write what somebody entered, broken to `width`, and stand below it, at the same left edge; all in mm."""
        left, size = self.get_x(), self.font_size_pt
        for line in self._lines(list(self._letters(text)), width - 2 * self.c_margin):
            x, top = left + self.c_margin, self.get_y()
            for piece in _as_seen(_pieces(line)):
                width_of_piece = self._width([piece])
                self.set_xy(x - self.c_margin, top)
                self.cell(width_of_piece + 2 * self.c_margin, line_height, piece.text)
                x += width_of_piece
            self.set_xy(left, top + line_height)
        self.set_text_shaping(use_shaping_engine=False)
        self.set_font(BODY, size=size)

    def _letters(self, text: str) -> Iterator[_Letter]:
        font: str | None = None
        code = next((script(letter) for letter in text if script(letter) not in _SHARED), "Zyyy")
        for character in BidiParagraph(text=text, preserve_bn_chars=True).get_characters():
            letter, level = character.character, character.embedding_level
            if unicodedata.bidirectional(letter) in _ORDERING:
                continue
            font = self._font_of(letter, after=font)
            code = script(letter) if script(letter) not in _SHARED else code
            if font:
                yield _Letter(letter, font, code, level)
            elif unicodedata.category(letter) != "Cf":  # which would not be seen in any font
                self.has_boxes = True
                yield _Letter(BOX, BODY, "Zyyy", level)

    def _font_of(self, letter: str, *, after: str | None) -> str | None:
        """The first font that can write a letter; a mark or a joiner stays with the letter before it."""
        if after and unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf") and self._writes(after, letter):
            return after
        for font in self._fonts_in_order():
            if self._writes(font, letter):
                return font
        return None

    def _fonts_in_order(self) -> Iterator[str]:
        """Those that are loaded, then the others: few receipts need more than the first, and a font takes time."""
        yield from list(self._scripts)
        while self._more:
            name = f"more{len(self._scripts)}"
            self._add(name, self._more.pop(0))
            yield name

    def _add(self, name: str, path: Path) -> None:
        self.add_font(name, fname=path)
        font = self.fonts[name]
        assert isinstance(font, TTFFont)  # noqa: S101 - for the type checker: it was added from a file
        tables = [font.ttfont[table].table for table in ("GSUB", "GPOS") if table in font.ttfont]
        self._scripts[name] = frozenset(
            record.ScriptTag
            for table in tables
            if table.ScriptList
            for record in table.ScriptList.ScriptRecord
        )

    def _writes(self, name: str, letter: str) -> bool:
        font = self.fonts[name]
        if not isinstance(font, TTFFont) or ord(letter) not in font.cmap:
            return False
        code = script(letter)
        return code in _SIMPLE_SCRIPTS | _SHARED or not self._scripts[name].isdisjoint(
            ot_tags_from_script(code)
        )

    def _lines(self, letters: list[_Letter], width: float) -> Iterator[list[_Letter]]:
        """Broken at a space where there is one; else wherever a line is full, though never before a mark."""
        while letters:
            end = bisect_right(
                range(1, len(letters) + 1), width, key=lambda count: self._width(_pieces(letters[:count]))
            )
            if end < len(letters):
                spaces = [place for place, letter in enumerate(letters[: end + 1]) if letter.text == " "]
                end = spaces[-1] + 1 if spaces else end
                while end > 1 and unicodedata.category(letters[end].text).startswith("M"):
                    end -= 1
            end = max(end, 1)
            yield letters[:end] if end == len(letters) else _without_end_spaces(letters[:end])
            letters = letters[end:]

    def _width(self, pieces: Sequence[_Piece]) -> float:
        """In mm. Leaves the font and the direction set for the last piece."""
        width = 0.0
        for piece in pieces:
            self.set_font(piece.font, size=self.font_size_pt)
            self.set_text_shaping(use_shaping_engine=True, direction="rtl" if piece.level % 2 else "ltr")
            width += self.get_string_width(piece.text)
        return width

    def _preload_bidirectional_text(self, text: str, markdown: bool) -> Sequence[Fragment]:  # noqa: FBT001 - theirs
        """A piece is whole already: the library would cut it again, at every mark and joiner, and so unjoin letters."""
        if not self.text_shaping:
            return super()._preload_bidirectional_text(text, markdown)
        direction = self.text_shaping["direction"]
        self.text_shaping |= {"paragraph_direction": direction, "fragment_direction": direction}
        return (Fragment(text, self._get_current_graphics_state(), self.k),)


def _pieces(letters: Sequence[_Letter]) -> list[_Piece]:
    return [
        _Piece("".join(letter.text for letter in run), font, level)
        for (font, level, _), run in groupby(letters, key=lambda at: (at.font, at.level, at.script))
    ]


def _as_seen(pieces: list[_Piece]) -> list[_Piece]:
    """From left to right: rule L2 of the algorithm. The letters inside a piece are turned where they are shaped."""
    seen = list(pieces)
    for lowest in range(max((piece.level for piece in seen), default=0), 0, -1):
        runs = groupby(seen, key=lambda piece: piece.level >= lowest)
        seen = [piece for turned, run in runs for piece in (reversed(list(run)) if turned else list(run))]
    return seen


def _without_end_spaces(line: list[_Letter]) -> list[_Letter]:
    while line and line[-1].text == " ":
        line = line[:-1]
    return line
