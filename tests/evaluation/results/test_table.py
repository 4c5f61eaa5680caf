"""Rows, means, deviations and differences."""

from __future__ import annotations

import pytest

from cat_seg.errors import UserError
from cat_seg.evaluation.results.read import read_runs
from cat_seg.evaluation.results.table import COLUMNS, Cell, summarize
from tests.run_folders import write_run


@pytest.fixture
def rows(tmp_path):
    """Rows of runs given as (config, results), each in a folder of its own."""

    def rows(*given, **options):
        folders = [
            str(write_run(tmp_path / str(index), config, results))
            for index, (config, results) in enumerate(given)
        ]
        return summarize(read_runs(folders), **options)

    return rows


def test_the_columns_are_the_benchmarks():
    assert COLUMNS == ("A-847", "A-150", "PC-459", "PC-59", "PAS-20", "PAS-20b")


def test_one_run_is_compared_with_the_baseline(rows):
    baseline, full = rows(
        ("vitb_384_enhanced", {"A-150": 32.5, "PC-59": 57.0, "A-847": 12.0}),
        ("vitb_384_oft", {"A-150": 32.0, "PC-59": 57.5, "PAS-20": 95.0}),
    )
    assert (baseline.method, full.method) == ("H-CLIP", "HPS-Seg")
    assert baseline.cells["A-150"] == Cell(32.0, None, 1, None)
    assert full.cells["A-150"] == Cell(32.5, None, 1, 0.5)
    assert full.cells["PC-59"].difference == -0.5
    assert full.cells["A-847"].difference is None
    assert "PAS-20" not in full.cells


def test_several_runs_are_mean_and_sample_deviation(rows):
    baseline, full = rows(
        ("vitb_384_oft", {"A-150": 31.0}),
        ("vitb_384_oft", {"A-150": 33.0}),
        ("vitb_384_enhanced", {"A-150": 34.0}),
        ("vitb_384_oft", {}),
    )
    assert (baseline.runs, full.runs) == (3, 1)
    assert baseline.cells["A-150"] == Cell(32.0, pytest.approx(2**0.5), 2)
    assert full.cells["A-150"] == Cell(34.0, None, 1, 2.0)


def test_backbones_have_baselines_of_their_own(rows):
    found = rows(
        ("vitb_384", {"A-150": 31.0}),
        ("vitl_336", {"A-150": 38.0}),
        ("vitb_384_oft", {"A-150": 32.0}),
    )
    assert [(row.method, row.backbone, row.baseline) for row in found] == [
        ("CAT-Seg", "ViT-B/16", "H-CLIP"),
        ("H-CLIP", "ViT-B/16", "H-CLIP"),
        ("CAT-Seg", "ViT-L/14@336px", "CAT-Seg"),
    ]
    assert [row.cells["A-150"].difference for row in found] == [-1.0, None, None]


def test_the_first_method_is_the_baseline_where_h_clip_is_not_there(rows):
    first, second = rows(("vitb_384_hyperbolic", {"A-150": 3.0}), ("vitb_384", {"A-150": 1.0}))
    assert (first.method, second.cells["A-150"].difference) == ("CAT-Seg", 2.0)


def test_the_baseline_can_be_chosen(rows):
    given = [("vitb_384", {"A-150": 1.0}), ("vitb_384_oft", {"A-150": 3.0}), ("vitl_336", {})]
    cat_seg, h_clip, other = rows(*given, baseline="CAT-Seg")
    assert cat_seg.cells["A-150"].difference is None
    assert h_clip.cells["A-150"].difference == 2.0
    assert other.cells == {}


def test_a_baseline_that_no_run_is_of_is_refused(rows):
    with pytest.raises(UserError, match=r"--baseline HPS-Seg: no such method; choose from CAT-Seg"):
        rows(("vitb_384", {}), baseline="HPS-Seg")


def test_other_metrics_are_columns_too(rows):
    given = ("vitb_384", {"A-150": 31.8})
    assert rows(given, metric="pACC")[0].cells["A-150"].mean == 50.0


def test_a_class_without_labels_is_not_measured(rows):
    assert rows(("vitb_384", {"A-150": 31.8}), metric="IoU-cat")[0].cells == {}


def test_a_metric_that_no_run_has_is_refused(rows):
    with pytest.raises(UserError, match=r"--metric miou: no such metric; choose from mIoU, pACC"):
        rows(("vitb_384", {"A-150": 31.8}), metric="miou")
