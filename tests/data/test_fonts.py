"""Fonts: every character of a name is drawn by a font that has it; what none has is said, and nobody is warned."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from metarep.data.drawing import fonts
from metarep.data.drawing.confusion_picture import MOST_NARROW, confused_pairs, draw_counts, shorten
from metarep.data.drawing.contact_sheet import MOST_IMAGES, contact_sheet
from metarep.data.drawing.fonts import Pen, choose_fonts, installed, note_on

CAT = "猫"


@pytest.fixture(scope="module")
def cat_font(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A font of one character, a black square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for move, point in (("moveTo", (50, 0)), ("lineTo", (950, 0)), ("lineTo", (950, 800)), ("lineTo", (50, 800))):
        getattr(pen, move)(point)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({ord(CAT): "cat"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 50)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    path = tmp_path_factory.mktemp("fonts") / "cats.ttf"
    font.save(path)
    return str(path)


def only(monkeypatch: pytest.MonkeyPatch, *files: str) -> None:
    """A machine with these fonts besides the first."""
    monkeypatch.setattr(fonts, "installed", lambda: files)


def ink(path: Path) -> int:
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("L")) < 128).sum())


def test_a_font_that_has_the_character_is_chosen(
    monkeypatch: pytest.MonkeyPatch, cat_font: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    only(monkeypatch, str(tmp_path / "bad.ttf"), cat_font)
    assert choose_fonts(["a cat", CAT], set("act")) == ([cat_font], "")
    assert choose_fonts([CAT + "犬"], set()) == ([cat_font], "犬")
    assert choose_fonts(["plain\u200d \ufe0f"], set("plain")) == ([], ""), "what is not seen needs no font"
    only(monkeypatch)
    assert choose_fonts([CAT], set("act")) == ([], CAT)
    assert "has one of the characters; try Noto Sans CJK" in note_on(CAT)
    assert "has 2 of the characters; try Noto Sans for their script" in note_on("กข")


def test_what_is_installed_is_found() -> None:
    """Whatever the machine has, matplotlib brings one that has more than Latin."""
    found, missing = choose_fonts(["Ђ"], set())
    assert (len(found), missing) == (1, "")


def test_plain_cuts_come_before_styled_ones() -> None:
    """Matplotlib brings an extra light cut, whose file comes first in the alphabet."""
    names = [Path(file).stem for file in installed()]
    assert names.index("DejaVuSans") < min(names.index(f"DejaVuSans-{cut}") for cut in ("Bold", "Oblique"))
    assert all(names.index("DejaVuSans") < at for at, name in enumerate(names) if "Light" in name or "Display" in name)


def test_confusion_in_any_script(monkeypatch: pytest.MonkeyPatch, cat_font: str, tmp_path: Path) -> None:
    """Warnings are errors in these tests, so that a missing glyph would end it."""
    names, notes, drawn = [f"{CAT * 3} ${i}" for i in range(5)], [], []
    for files in ([cat_font], []):
        only(monkeypatch, *files)
        notes.append(Pen(10, names).note)
        draw_counts(torch.eye(5) * 2, names, tmp_path / "cats.png", title="$a cat$")
        with Image.open(tmp_path / "cats.png") as picture:
            black = (np.asarray(picture.convert("RGB")) < 40).all(-1)
        drawn.append(np.lib.stride_tricks.sliding_window_view(black, (6, 6)).all((-1, -2)).sum())
    assert notes == ["", note_on(CAT)]
    assert drawn[0] > 100, "its black squares"
    assert drawn[1] == 0, "boxes are lines"


def test_a_pen_writes_all_of_a_line(monkeypatch: pytest.MonkeyPatch, cat_font: str) -> None:
    only(monkeypatch, cat_font)
    pen, picture = Pen(20, [f"a {CAT} b"]), Image.new("L", (120, 40), 255)
    assert pen.note == ""
    pen.write(ImageDraw.Draw(picture), (5, 5), f"a {CAT} b", "black")
    dark = np.asarray(picture) < 128
    assert dark[10:22, 26:36].all(), "the square in the middle"
    assert pen.width(f"a {CAT} b") == pytest.approx(pen.width("a ") + 20 + pen.width(" b"))
    assert pen.fit("a long line of text", 60).count("…") == 1
    assert pen.width(pen.fit("a long line of text", 60)) <= 60


def test_the_most_confused_come_first() -> None:
    counts = torch.tensor([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [2.0, 1.0, 0.0]])
    assert confused_pairs(counts) == [(2, 0), (2, 1), (0, 1)]
    assert shorten("蝴蝶" * 20) == "蝴蝶" * 5 + "蝴…"


@pytest.mark.parametrize("ways", [1, 2, 40, 41, 151, 1600])
def test_shares_are_drawn_where_they_belong(ways: int, tmp_path: Path) -> None:
    """The classes are taken for each other in pairs; the middle of each square has the darkest or the lightest blue."""
    partner = torch.arange(ways) ^ 1 if ways > 1 and ways % 2 == 0 else torch.arange(ways)
    draw_counts(torch.eye(ways)[partner] * 3, [f"class {i}" for i in range(ways)], tmp_path / "c.png", title="")
    with Image.open(tmp_path / "c.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    frame = (pixels == 0x22).all(-1)
    left, top = int(frame.sum(0).argmax()) + 1, int(frame.sum(1).argmax()) + 1
    side = frame[top - 1, left - 1 :].argmin() - 2
    middles = ((np.arange(min(ways, 150)) + (0.1 if ways <= 40 else 0.5)) * side / ways).astype(int)
    across = middles[partner[: len(middles)].clamp(max=len(middles) - 1)]
    if ways <= side:
        assert (pixels[top + middles, left + across] == [8, 48, 107]).all()
        assert ways == 1 or (pixels[top + middles, left + np.roll(across, 1 + (ways > 2))] == [247, 251, 255]).all()
    else:
        assert (pixels[top + middles, left + across] < 247).any(-1).all(), "several classes share a pixel"


def test_the_names_of_many_classes_are_drawn(tmp_path: Path) -> None:
    """At the side of its row, below its column, and on the list: without them there would be less ink."""
    counts = torch.eye(64).roll(1, 0)
    draw_counts(counts, [f"class {i}" for i in range(64)], tmp_path / "named.png", title="")
    draw_counts(counts, [" "] * 64, tmp_path / "bare.png", title="")
    named, bare = ink(tmp_path / "named.png"), ink(tmp_path / "bare.png")
    assert named > bare + 64 * 3 * 30
    assert MOST_NARROW > 101


def test_long_rows_of_a_sheet_wrap_and_what_is_left_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that are gone are grey tiles, which is enough to count them."""
    said: list[str] = []
    write = Pen.write
    monkeypatch.setattr(
        Pen, "write", lambda pen, draw, at, text, colour: (said.append(text), write(pen, draw, at, text, colour))
    )
    row = [(f"{i}.png", f"{i}") for i in range(19)]
    assert contact_sheet([row, row[:2]], tmp_path / "wrapped.png") == 0
    with Image.open(tmp_path / "wrapped.png") as sheet:
        assert sheet.size == (12 + 8 * 156, 12 + 4 * 196)
        grey = (np.asarray(sheet)[80::196, 80::156] == 0xDD).all(-1)
        assert grey.sum(1).tolist() == [8, 8, 3, 2]
    assert "18.png" in said
    assert not any("not shown" in text for text in said)
    assert contact_sheet([row[:2]] * 22, tmp_path / "many.png", first="") == 2
    assert said[-1] == "not shown: 2 more rows"
    contact_sheet([row[:1]] * 22, tmp_path / "narrow.png", first="")
    assert said[-2:] == ["not shown: 2 more", "rows"]
    monkeypatch.setattr("metarep.data.drawing.contact_sheet.MOST_IMAGES", 10)
    contact_sheet([row[:9], row[:3], row[:3]], tmp_path / "full.png")
    assert said[-1] == "not shown: 1 more row and 2 more images"
    assert MOST_IMAGES >= 1000, "-k 500 is drawn whole"
