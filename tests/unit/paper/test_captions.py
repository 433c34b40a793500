"""Captions of the paper as text for the report."""

from pathlib import Path

import pytest

from goldilocks_zone.figures import registry
from goldilocks_zone.paper import captions, latex

ROOT = Path(__file__).parents[3]


REFERENCES = (ROOT / "paper/references.bib").read_text(encoding="utf-8")
TEXTS = (*(ROOT / "paper/sections").glob("*.tex"), *(ROOT / "paper/works").glob("*/*.tex"))
SECTIONS = [path.read_text(encoding="utf-8") for path in sorted(TEXTS)]


@pytest.fixture(scope="module")
def found():
    return captions.captions(SECTIONS, REFERENCES)


def test_every_figure_has_one_that_can_be_read(found):
    assert set(found) == set(registry.figures())
    for name, text in found.items():
        assert len(text) > 80 and text.endswith(".") and not set("\\{}$~") & set(text), name
        assert "()" not in text and " )" not in text and "??" not in text and "(:" not in text, name


def test_mathematics_citations_and_references(found):
    assert "all widths (conv: channels and blocks)" in found["other_networks"]
    assert "published by Fort and Scherlis (2019)" in found["fraction_positive"]
    assert "Tr(H)/‖H‖ (dimensionless)" in found["trace_over_norm"] and "Figure fraction_positive" in found["loss"]
    assert "√(D) σ_C‖Q - Q̂‖" in found["confidence"] and "‖G‖_2/‖H'‖_2" in found["not_homogeneous"]


def test_numbers_come_from_the_run():
    generated = "\\expandafter\\def\\csname setting:cuts\\endcsname{one draw, 5\\,\\% of it}%\n"
    assert "above it (one draw, 5 % of it)" in captions.captions([*SECTIONS, generated], REFERENCES)["cuts"]


def test_a_figure_of_the_appendix_has_its_caption_too():
    caption = latex.escape("‖H‖ over r_X² & 5 % of fc_1, κ(α)")
    generated = rf"\begin{{panels}}{{mine}}\resultfigure{{mine}}\caption{{{caption}}}\end{{panels}}"
    assert captions.captions([generated], REFERENCES) == {"mine": "‖H‖ over r_X² & 5 % of fc_1, κ(α)"}


def test_nothing_in_a_caption_is_markup():
    assert captions.restructured("a_b *c* |d| `e` \\") == "a\\_b \\*c\\* \\|d\\| \\`e\\` \\\\"
