"""A label that a guard, a technician and a scanner can read, whatever the names are."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from provisioning import label as room
from provisioning.errors import SetupFault
from provisioning.label import Words, label

ON = date(2026, 11, 24)
SHORT = Words("khi-cn-main-gate", "Consulate, Clifton", "Main gate", ON, "قونصل خانہ، کلفٹن", "صدر دروازہ")
LONG = Words(
    "khi-consulate-general-of-the-peoples-republic-visa-hall-entrance",
    "Consulate General of the People's Republic of China in Karachi, Block 4, Clifton",
    "Visa applicants' waiting hall, second door on the left",
    ON,
    "قونصلیٹ جنرل عوامی جمہوریہ چین، کراچی، بلاک ۴، کلفٹن",
    "ویزا درخواست گزاروں کا انتظار گاہ، بائیں جانب دوسرا دروازہ",
)
STRANGE = Words("a" * 64, "W" * 200, "x" * 60 + " y", ON, "گ" * 30, "Gate گیٹ A2")
BARE = Words("b1", "S", "E", ON)
ALL = pytest.mark.parametrize("words", [SHORT, LONG, STRANGE, BARE], ids=["short", "long", "strange", "bare"])


def picture(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("L")


def text(pdf: bytes) -> str:
    document = pypdfium2.PdfDocument(pdf)
    try:
        return document[0].get_textpage().get_text_range()
    finally:
        document.close()


@ALL
def test_it_is_one_page_of_62_by_40_mm(words: Words) -> None:
    made = label(words)
    document = pypdfium2.PdfDocument(made.pdf)
    assert len(document) == 1
    width, height = (points * 25.4 / 72 for points in document[0].get_size())
    document.close()
    assert (width, height) == (pytest.approx(62, abs=0.05), pytest.approx(40, abs=0.05))
    png = Image.open(io.BytesIO(made.png))
    assert png.size == (room.WIDTH, room.HEIGHT)
    assert png.info["dpi"] == (pytest.approx(300, abs=0.1),) * 2


@ALL
def test_a_scanner_reads_the_id(words: Words) -> None:
    png, matrix = picture(label(words).png), room.code(words.id)
    dark = [(x, y) for y in range(320) for x in range(320) if png.getpixel((x, y)) < 128]
    left, right = min(x for x, _ in dark), max(x for x, _ in dark) + 1
    top, bottom = min(y for _, y in dark), max(y for _, y in dark) + 1
    module = (right - left) / len(matrix)
    assert module == (bottom - top) / len(matrix)
    assert module == int(module) >= 6  # half a millimetre
    assert min(left, top) >= 4 * module  # the white that ISO/IEC 18004 asks for
    assert min(png.crop((right, top, int(right + 4 * module), bottom)).getdata()) == 255
    sampled = tuple(
        tuple(int(png.getpixel((int(left + (c + 0.5) * module), int(top + (r + 0.5) * module))) < 128) for c in range(len(matrix)))
        for r in range(len(matrix))
    )  # fmt: skip
    assert sampled == matrix


@ALL
def test_nothing_touches_the_edge_or_the_code(words: Words) -> None:
    png = picture(label(words).png)
    inner = (20, 20, room.WIDTH - 20, room.HEIGHT - 16)
    outside = png.copy()
    outside.paste(255, inner)
    assert min(outside.getdata()) == 255
    assert min(png.crop((296, 20, 320, 320)).getdata()) == 255
    assert min(png.crop((20, 326, room.WIDTH - 20, 334)).getdata()) == 255  # between the line and the id


def test_its_text_can_be_copied_and_searched() -> None:
    found = text(label(SHORT).pdf)
    for words in ("khi-cn-main-gate", "Consulate, Clifton", "Main gate", "2026-11-24"):
        assert words in found
    urdu = [letter for letter in found if letter > "\u0600"]
    assert sorted(urdu) == sorted(letter for letter in SHORT.site_ur + SHORT.entrance_ur if letter > "\u0600")


def test_urdu_is_joined_and_runs_from_right_to_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shaped = picture(label(SHORT).png).crop((324, 20, 712, 320))
    monkeypatch.setattr(
        room.FPDF, "set_text_shaping", lambda self, *_, **__: setattr(self, "text_shaping", None)
    )  # fmt: skip
    unshaped = picture(label(SHORT).png).crop((324, 20, 712, 320))
    assert list(shaped.getdata()) != list(unshaped.getdata())
    assert _pieces(shaped) < _pieces(unshaped)


def _pieces(png: Image.Image) -> int:
    """How many separate pieces of ink there are."""
    ink = {(x, y) for y in range(png.height) for x in range(png.width) if png.getpixel((x, y)) < 128}
    count = 0
    while ink:
        count += 1
        near = [ink.pop()]
        while near:
            x, y = near.pop()
            for one in [(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]:
                if one in ink:
                    ink.remove(one)
                    near.append(one)
    return count


def test_latin_letters_in_an_urdu_name_are_there() -> None:
    def width(entrance_ur: str) -> int:
        png = picture(label(Words("b1", "", "", ON, "", entrance_ur)).png).crop((324, 20, 712, 320))
        box = png.point(lambda grey: 255 - grey).getbbox()
        return box[2] - box[0]

    assert width("گیٹ A2") > width("گیٹ 2") + 10


def test_the_same_words_make_the_same_label_and_others_do_not(tmp_path: Path) -> None:
    first = label(SHORT)
    assert first == label(SHORT)
    assert first != label(BARE)
    pdf, png = first.write(tmp_path / "labels", SHORT.id)
    assert (pdf.name, png.name) == ("khi-cn-main-gate.pdf", "khi-cn-main-gate.png")
    assert pdf.read_bytes() == first.pdf


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    room.fonts.cache_clear()
    monkeypatch.setattr(room.shutil, "which", lambda _name: None)
    monkeypatch.setattr(room, "_FOLDERS", ())
    yield
    room.fonts.cache_clear()


def test_a_missing_font_names_the_package(no_fonts: None) -> None:
    with pytest.raises(SetupFault, match="apt install fonts-noto-core"):
        label(SHORT)


def test_fonts_are_found_without_fontconfig_and_another_urdu_font_will_do(
    no_fonts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "_FOLDERS", ("/usr/share/fonts",))
    assert room.fonts()["urdu-bold"].name == "NotoNastaliqUrdu-Bold.ttf"
    room.fonts.cache_clear()
    for name in ("NotoSans-Regular", "NotoSans-Bold", "NotoNaskhArabic-Regular"):
        (found,) = Path("/usr/share/fonts").rglob(f"{name}.ttf")
        (tmp_path / f"{name}.ttf").symlink_to(found)
    monkeypatch.setattr(room, "_FOLDERS", (str(tmp_path),))
    assert room.fonts()["urdu-bold"].name == "NotoNaskhArabic-Regular.ttf"
    assert label(SHORT).png
