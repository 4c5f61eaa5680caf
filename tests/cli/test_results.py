"""The tool on run folders: what it prints, writes and refuses."""

from __future__ import annotations

import pytest
from PIL import Image

from cat_seg.cli import results as collect_results
from tests.run_folders import write_run


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    write_run(root / "a", "vitb_384_oft", {"A-150": 32.0})
    write_run(root / "b", "vitb_384_enhanced", {"A-150": 32.5})
    return root


def failure(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as status:
        collect_results.main(list(map(str, arguments)))
    assert status.value.code == 2
    return capsys.readouterr().err


def test_the_table_is_printed_and_written_beside_the_chart(runs, tmp_path, capsys):
    table, chart = tmp_path / "new" / "table.md", tmp_path / "new" / "chart.png"
    collect_results.main([str(runs), "--output", str(table), "--chart", str(chart)])
    printed = capsys.readouterr()
    assert printed.out == table.read_text()
    assert "32.5 (+0.5)" in printed.out
    assert printed.err == ""
    with Image.open(chart) as picture:
        assert (picture.format, picture.width) == ("PNG", 1500)


def test_options_choose_format_metric_and_baseline(runs, capsys):
    collect_results.main([str(runs), "--format", "csv", "--baseline", "HPS-Seg"])
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith("H-CLIP,ViT-B/16,1,-,32.0") and ",-0.5," in first
    assert second.startswith("HPS-Seg")
    collect_results.main([str(runs), "--metric", "pACC"])
    assert "50.0 (+0.0)" in capsys.readouterr().out


def test_warnings_are_printed_with_the_table(runs, capsys):
    write_run(runs / "c", "vitb_384_oft", {"A-150": 30.0}, ("SOLVER.MAX_ITER", "7"))
    collect_results.main([str(runs)])
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: runs of H-CLIP")
    assert "warning" not in printed.out


def test_without_a_measurement_no_chart_is_drawn(tmp_path, capsys):
    write_run(tmp_path / "a")
    collect_results.main([str(tmp_path / "a"), "--chart", str(tmp_path / "chart.png")])
    printed = capsys.readouterr()
    assert "| H-CLIP" in printed.out
    assert "no results to plot" in printed.err
    assert not (tmp_path / "chart.png").exists()


def test_refusals_are_one_line(runs, tmp_path, capsys):
    (tmp_path / "file").touch()
    for arguments, problem in (
        ((tmp_path / "nowhere",), "is not a folder"),
        ((runs, "--chart", "chart.jpg"), "ending in .png"),
        ((runs, "--baseline", "CAT-Seg"), "--baseline CAT-Seg"),
        ((runs, "--output", tmp_path / "file" / "table.md"), "cannot write"),
        ((runs, "--output", tmp_path), "it is a folder"),
    ):
        (line,) = failure(capsys, *arguments).splitlines()
        assert line.startswith("error: ") and problem in line


def test_partial_results_are_marked(tmp_path, capsys):
    """Results of earlier versions do not say how many images there should be."""
    few = {"images": 3, "expected": 2000}
    write_run(tmp_path / "a", "vitb_384", results={"A-150": 31.8}, counts=few)
    write_run(tmp_path / "b", "vitb_384_oft", results={"A-150": 30.8}, counts={"images": 3})
    collect_results.main([str(tmp_path)])
    printed = capsys.readouterr()
    assert " 31.8* (+1.0) |" in printed.out and " 30.8 |" in printed.out
    assert printed.out.endswith("; * marks results on only part of a dataset.\n")
    assert "a has A-150 evaluated on only 3 of 2000 images" in printed.err
