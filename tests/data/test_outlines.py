from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from fontTools.pens.areaPen import AreaPen
from fontTools.ttLib import TTFont

from fewshot_nsl.data.outlines import UNITS, Face

FONT = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf"


@pytest.mark.parametrize("character", ["A", "g", "ß", "Ж", "δ", "Ֆ", "ლ"])
def test_contours_are_closed_and_enclose_the_glyphs_area(character: str) -> None:
    edges = Face(FONT).edges(character)
    starts, ends = edges[:, :2], edges[:, 2:]
    assert sorted(map(tuple, starts.tolist())) == sorted(map(tuple, ends.tolist()))
    font = TTFont(FONT)
    pen = AreaPen()
    font.getGlyphSet()[font.getBestCmap()[ord(character)]].draw(pen)
    x0, y0, x1, y1 = (edges / UNITS).T
    area = float(np.sum(x0 * y1 - x1 * y0) / 2)
    assert area == pytest.approx(pen.value, rel=0.01)


def test_an_accented_letter_is_its_parts() -> None:
    face = Face(FONT)
    assert len(face.edges("é")) > len(face.edges("e"))


def test_points_of_the_font_are_on_the_outline() -> None:
    assert Face(FONT).em == 2048
    box = Face(FONT).edges("I").reshape(-1, 2)
    glyph = TTFont(FONT)["glyf"]["I"]
    assert (box.min(axis=0) / UNITS).tolist() == [glyph.xMin, glyph.yMin]
    assert (box.max(axis=0) / UNITS).tolist() == [glyph.xMax, glyph.yMax]
