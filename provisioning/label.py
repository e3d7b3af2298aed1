"""The label on a button: its id, also as a QR code, its place in English and Urdu, the day. One page of PDF, and a PNG of it.

62 × 40 mm, the common size of label printers; black on white. Everything lies on the dots of a 300 dpi printer. Text
shrinks and wraps until it fits: no name is too long.
"""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pypdfium2
import segno
import uharfbuzz
from fpdf import FPDF

from provisioning.errors import SetupFault

DPI = 300
WIDTH, HEIGHT = 732, 472  # dots: 62 × 40 mm
_DOT = 72 / DPI  # points
_HAIR = 0.01  # points: a rectangle that ends a hair early is not rounded up to the next dot
_QR = 240  # the most that the code itself may take, in dots
_QUIET = 4  # modules of white around it (ISO/IEC 18004 6.3.8)
_EDGE = 24  # dots of white around everything
_COLUMN = 324  # where the text beside the code begins; it is this wide and high with the white around it
_RULE = 324  # the line above the id
_GAP = 14
_DATE = 140
_MOST_LINES = 4
_LEADING = 1.12
_LONG_WORD = 16  # letters after which a word may be broken
_PACKAGE = "fonts-noto-core"
_PDFIUM = threading.Lock()  # PDFium works for one thread at a time, and a batch has many
_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")


@dataclass(frozen=True)
class Words:
    """What stands on a label. ur: in Urdu; empty where there is none."""

    id: str
    site: str
    entrance: str
    on: date
    site_ur: str = ""
    entrance_ur: str = ""


@dataclass(frozen=True)
class Label:
    """A finished label."""

    pdf: bytes
    png: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """name.pdf and name.png in the folder; returns both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / f"{name}.pdf", folder / f"{name}.png"
        for path, octets in zip(paths, (self.pdf, self.png), strict=True):
            path.write_bytes(octets)
        return paths


@dataclass(frozen=True)
class _Box:
    """Where a text may be, in dots from the upper left; most: the largest size of its letters, in points."""

    x: float
    y: float
    width: float
    height: float
    most: float


def label(words: Words) -> Label:
    """Makes a label. Raises SetupFault if a font is missing: the button is good without a label, too."""
    pdf = make_pdf(words)
    return Label(pdf, render(pdf))


def make_pdf(words: Words) -> bytes:
    """The label as a PDF, the same for the same words. Raises SetupFault."""
    page = FPDF(unit="pt", format=(WIDTH * _DOT, HEIGHT * _DOT))
    page.set_creation_date(datetime.combine(words.on, time(), UTC))
    page.set_title(words.id)
    page.set_margin(0)
    page.c_margin = 0
    page.set_auto_page_break(auto=False)
    page.add_page()
    page.set_text_shaping(use_shaping_engine=True)
    pen = _Pen(page)
    _draw_code(page, code(words.id))
    parts = [
        (words.entrance, "sans-bold", 0.21, 13.0),
        (words.entrance_ur, "urdu-bold", 0.35, 16.0),
        (words.site, "sans", 0.18, 8.5),
        (words.site_ur, "urdu", 0.26, 11.0),
    ]
    there = [part for part in parts if part[0].strip()]
    share = sum(part[2] for part in there) or 1
    room = _RULE - _EDGE - _GAP * len(there)
    y = float(_EDGE)
    for text, face, part, most in there:
        box = _Box(_COLUMN, y, WIDTH - _EDGE - _COLUMN, room * part / share, most)
        pen.write(text, face, box, at_right=face.startswith("urdu"))
        y += box.height + _GAP
    page.set_line_width(_DOT)
    page.line(_EDGE * _DOT, _RULE * _DOT, (WIDTH - _EDGE) * _DOT, _RULE * _DOT)
    below, height = _RULE + _GAP, HEIGHT - _RULE - _GAP - _EDGE
    right = WIDTH - _EDGE - _DATE
    pen.write(words.id, "sans-bold", _Box(_EDGE, below, right - _EDGE - 2 * _GAP, height, 14.0), most_lines=2)
    dated = _Box(right, below, _DATE, height, 7.5)
    pen.write(f"{words.on:%Y-%m-%d}", "sans", dated, at_right=True, most_lines=1)
    return bytes(page.output())


def render(pdf: bytes) -> bytes:
    """The page of a label as a PNG, 300 dpi, shades of grey."""
    with _PDFIUM:
        document = pypdfium2.PdfDocument(pdf)
        try:
            # A hair less than 300 dpi: the width in floating point may be a hair more than whole dots, and is rounded up.
            picture = document[0].render(scale=(1 - 1e-6) / _DOT, grayscale=True).to_pil()
        finally:
            document.close()
    file = io.BytesIO()
    picture.save(file, "PNG", dpi=(DPI, DPI))
    return file.getvalue()


def code(text: str) -> tuple[tuple[int, ...], ...]:
    """The QR code's modules, row by row, 1 is dark; no white around it."""
    made = segno.make(text, error="m", micro=False)
    return tuple(tuple(int(one) for one in row) for row in made.matrix)


def _draw_code(page: FPDF, matrix: Sequence[Sequence[int]]) -> None:
    module = min(_QR // len(matrix), _COLUMN // (len(matrix) + 2 * _QUIET))
    at = (_COLUMN - module * len(matrix)) // 2
    page.set_fill_color(0)
    for row, modules in enumerate(matrix):
        start = 0
        while start < len(modules):
            end = start
            while end < len(modules) and modules[end]:
                end += 1
            if end > start:  # a run in one piece: no hairline between its modules
                x, y, width = at + start * module, at + row * module, (end - start) * module
                page.rect(
                    x * _DOT + _HAIR, y * _DOT + _HAIR, width * _DOT - 2 * _HAIR, module * _DOT - 2 * _HAIR, style="F"
                )
            start = end + 1


# -------------------------------------------------------------------------------------------------- text


class _Pen:
    """Writes text into boxes as large as it fits, by the extent of its ink."""

    def __init__(self, page: FPDF) -> None:
        self._page = page
        self._faces: dict[str, uharfbuzz.Font] = {}

    def write(self, text: str, face: str, box: _Box, *, at_right: bool = False, most_lines: int = _MOST_LINES) -> None:
        text = " ".join(text.split())
        is_urdu = any("\u0600" <= letter <= "\u08ff" or "\ufb50" <= letter <= "\ufeff" for letter in text)
        face = face.replace("sans", "urdu") if is_urdu else face.replace("urdu", "sans")
        self._load(face)
        if is_urdu:
            self._page.set_text_shaping(use_shaping_engine=True, direction="rtl", script="arab", language="urd")
        else:
            self._page.set_text_shaping(use_shaping_engine=True)
        lines, size = self._fitted(text, face, box, most_lines)
        self._page.set_font(face, size=size)
        up, down = self._ink(face, lines[0])[0] * size, self._ink(face, lines[-1])[1] * size
        step = self._step(face, lines) * size
        height = up + down + step * (len(lines) - 1)
        baseline = box.y * _DOT + (box.height * _DOT - height) / 2 + up
        for line in lines:
            width = self._page.get_string_width(line)
            before, after = (self._overhang(face, line)[side] * size for side in (0, 1))
            x = (box.x + box.width) * _DOT - width - after if at_right else box.x * _DOT + before
            self._page.set_xy(
                x, baseline - 0.8 * size
            )  # where a cell has its baseline: half its height and 0.3 of the size
            # Glyphs of Nastaliq are pieces of letters: what they stand for is said beside them.
            self._page._out(f"/Span <</ActualText <feff{line.encode('utf-16-be').hex()}>>> BDC")  # noqa: SLF001
            self._page.cell(width, size, line)
            self._page._out("EMC")  # noqa: SLF001
            baseline += step

    def _fitted(self, text: str, face: str, box: _Box, most_lines: int) -> tuple[list[str], float]:
        best: tuple[list[str], float] = ([text], 0.0)
        for count in range(1, most_lines + 1):
            lines = self._split(text, face, count)
            if len(lines) != count:
                break
            up, down = self._ink(face, lines[0])[0], self._ink(face, lines[-1])[1]
            height = up + down + self._step(face, lines) * (count - 1)
            width = max(self._width(line, face) for line in lines)
            size = min(box.most, box.width * _DOT / width, box.height * _DOT / height)
            if size > best[1]:
                best = lines, size
        return best

    def _split(self, text: str, face: str, count: int) -> list[str]:
        """The text in at most `count` lines, broken where a line may end, the longest as short as it can be."""
        pieces, piece = [], ""
        for letter in text:
            piece += letter
            if letter in " -." or (len(piece) >= _LONG_WORD and face.startswith("sans")):
                pieces.append(piece)
                piece = ""
        pieces = [one for one in [*pieces, piece] if one]
        widths = [self._width(one, face) for one in pieces]
        low, high = max(widths), sum(widths)
        lines: list[str] = []
        for _ in range(24):
            middle = (low + high) / 2
            tried = _packed(pieces, widths, middle)
            if len(tried) <= count:
                lines, high = tried, middle
            else:
                low = middle
        return [line.strip() for line in lines or _packed(pieces, widths, high + 1e-6)]

    def _width(self, text: str, face: str) -> float:
        self._page.set_font(face, size=100)
        return float(self._page.get_string_width(text)) / 100 + sum(self._overhang(face, text)) or 0.01

    def _ink(self, face: str, text: str) -> tuple[float, float]:
        """How far the ink goes above and below the baseline, for letters of size 1."""
        _, up, _, down = self._reach(face, text)
        return max(up, 0.7), down  # room for the ascenders that other lines have

    def _overhang(self, face: str, text: str) -> tuple[float, float]:
        """How far the ink goes beyond both ends of the text, for letters of size 1: the strokes of an Urdu گ do."""
        left, _, right, _ = self._reach(face, text)
        return left, right

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - a pen lives as long as its page
    def _reach(self, face: str, text: str) -> tuple[float, float, float, float]:
        font = self._faces[face]
        buffer = uharfbuzz.Buffer()
        buffer.add_str(text)
        buffer.guess_segment_properties()
        uharfbuzz.shape(font, buffer)
        left = up = right = down = at = 0.0
        for glyph, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            extents: Any = font.get_glyph_extents(glyph.codepoint)
            if extents is not None and extents.height:
                x, y = at + place.x_offset + extents.x_bearing, place.y_offset + extents.y_bearing
                left, right = max(left, -x), max(right, x + extents.width)
                up, down = max(up, y), max(down, -(y + extents.height))
            at += place.x_advance
        em = font.face.upem
        return left / em, up / em, max(0.0, right - at) / em, down / em

    def _step(self, face: str, lines: Sequence[str]) -> float:
        inks = [self._ink(face, line) for line in lines]
        return max(up for up, _ in inks) * _LEADING + max(down for _, down in inks)

    def _load(self, face: str) -> None:
        if face in self._faces:
            return
        path = fonts()[face]
        self._page.add_font(face, fname=str(path))
        self._faces[face] = uharfbuzz.Font(uharfbuzz.Face(path.read_bytes()))
        if face.startswith("urdu"):  # it has no Latin letters, such as those of a gate A2
            self._load("sans-bold")
            self._page.set_fallback_fonts(["sans-bold"], exact_match=False)


def _packed(pieces: Sequence[str], widths: Sequence[float], most: float) -> list[str]:
    lines, room = [""], most
    for piece, width in zip(pieces, widths, strict=True):
        if width > room and lines[-1]:
            lines.append("")
            room = most
        lines[-1] += piece
        room -= width
    return lines


# ------------------------------------------------------------------------------------------------- fonts

_FACES = {
    "sans": ("Noto Sans", "Regular"),
    "sans-bold": ("Noto Sans", "Bold"),
    "urdu": ("Noto Nastaliq Urdu", "Regular"),
    "urdu-bold": ("Noto Nastaliq Urdu", "Bold"),
}
_INSTEAD = {"Noto Nastaliq Urdu": "Noto Naskh Arabic"}


@functools.cache
def fonts() -> dict[str, Path]:
    """The font file of each face. Raises SetupFault that names the package to install."""
    return {face: _font(family, style) for face, (family, style) in _FACES.items()}


def _font(family: str, style: str) -> Path:
    for name in filter(None, (family, _INSTEAD.get(family))):
        for wanted in dict.fromkeys((style, "Regular")):
            if found := _matched(name, wanted) or _searched(name, wanted):
                return found
    raise SetupFault(
        f"The font {family} is missing, and a label can't be made without it: `sudo apt install {_PACKAGE}`, "
        "then make the label again. Nothing else needs it: the button is good without."
    )


def _matched(family: str, style: str) -> Path | None:
    """What fontconfig knows under exactly this name; it would give another font rather than none."""
    if not shutil.which("fc-match"):
        return None
    command = ["fc-match", "--format=%{family}\n%{style}\n%{file}", f"{family}:style={style}"]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20).stdout.split("\n")
    if len(said) != 3 or family not in said[0].split(",") or style not in said[1].split(","):
        return None
    path = Path(said[2])
    return path if path.suffix in {".ttf", ".otf"} and path.is_file() else None


def _searched(family: str, style: str) -> Path | None:
    name = f"{family.replace(' ', '')}-{style}"
    for folder in _FOLDERS:
        for suffix in ("ttf", "otf"):
            if found := next(Path(folder).expanduser().rglob(f"{name}.{suffix}"), None):
                return found
    return None
