"""The table as text."""

from __future__ import annotations

import csv

import pytest

from cat_seg.evaluation.results.formats import FORMATS, signed
from cat_seg.evaluation.results.table import Cell, Row

BASELINE = Row("H-CLIP", "ViT-B/16", 1, "H-CLIP", {"A-150": Cell(32.04, None, 1)})
FULL = Row("HPS-Seg", "ViT-B/16", 1, "H-CLIP", {"A-150": Cell(31.5, None, 1, -0.54)})
SEEDS = Row("HyperCLIP", "ViT-B/16", 3, "H-CLIP", {"A-150": Cell(33.0, 0.25, 2, 0.96)})
OTHER = Row("CAT-Seg (oft_qv)", "tiny_clip", 1, "CAT-Seg (oft_qv)", {})


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without the ruler."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [split[0], *split[2:]]


def test_markdown():
    text = FORMATS["markdown"]([BASELINE, FULL], "mIoU")
    assert cells(text) == [
        ["method", "backbone", "A-847", "A-150", "PC-459", "PC-59", "PAS-20", "PAS-20b"],
        ["H-CLIP", "ViT-B/16", "-", "32.0", "-", "-", "-", "-"],
        ["HPS-Seg", "ViT-B/16", "-", "31.5 (-0.5)", "-", "-", "-", "-"],
    ]
    assert text.splitlines()[-1] == (
        "mIoU in percent; in parentheses, the difference from H-CLIP with the same backbone."
    )


def test_several_runs_show_deviation_and_number():
    heading, one, several = cells(FORMATS["markdown"]([BASELINE, SEEDS], "mIoU"))
    assert heading[2] == "runs"
    assert (one[2], several[2]) == ("1", "3")
    assert (one[4], several[4]) == ("32.0", "33.0 ± 0.2 [n=2] (+1.0)")


def test_the_note_says_only_what_the_table_has():
    assert FORMATS["markdown"]([OTHER], "pACC").splitlines()[-1] == "pACC in percent."
    note = FORMATS["markdown"]([BASELINE, SEEDS], "mIoU").splitlines()[-1]
    assert "sample standard deviation" in note and "n is the number of runs" in note


def test_latex_is_escaped_and_set_by_booktabs():
    text = FORMATS["latex"]([BASELINE, FULL, SEEDS, OTHER], "mIoU")
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"oft\_qv", r"tiny\_clip"):
        assert part in text
    assert "31.5 ($-$0.5)" in text
    assert r"33.0 $\pm$ 0.2" in text
    assert text.isascii()
    comment, *table = text.splitlines()
    assert comment.startswith("% mIoU in percent")
    assert table[0].startswith(r"\begin{tabular}") and table[-1] == r"\end{tabular}"


def test_csv_has_plain_numbers():
    text = FORMATS["csv"]([BASELINE, FULL, SEEDS], "mIoU")
    first, full, seeds = csv.DictReader(text.splitlines())
    assert list(first)[:5] == ["method", "backbone", "runs", "A-847", "A-150"]
    assert (first["method"], first["A-150"], first["A-847"]) == ("H-CLIP", "32.04", "-")
    assert first["A-150 difference"] == "-"
    assert (full["A-150"], full["A-150 difference"]) == ("31.5", "-0.54")
    assert [seeds[f"A-150{name}"] for name in ("", " std", " n")] == ["33.0", "0.25", "2"]


@pytest.mark.parametrize(
    ("points", "text"), [(0.25, "+0.2"), (-1.0, "-1.0"), (-0.04, "+0.0"), (0.0, "+0.0")]
)
def test_differences_have_a_sign(points, text):
    assert signed(points) == text
