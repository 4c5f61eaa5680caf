"""The means over the datasets and domains of MESS, and the published figures beside them."""

from __future__ import annotations

import json
from statistics import fmean

import pytest

from cat_seg.cli import results as collect_results
from cat_seg.data.mess import DOMAINS, MESS_DATASETS
from cat_seg.errors import UserError
from cat_seg.evaluation.results.columns import VIEWS, Column
from cat_seg.evaluation.results.published import published_rows
from cat_seg.utils.paths import REPO_ROOT
from tests.run_folders import write_run

METRIC = "mIoU_present_or_predicted"
PARTS = [label for dataset in MESS_DATASETS for label in dataset.parts]
DOCUMENT = (REPO_ROOT / "docs/mess.md").read_text(encoding="utf-8")


def mess_run(folder, config: str, values: dict[str, float]):
    """A run with results of MESS's metric by label; its mIoU is 1 higher."""
    write_run(folder, config, {label: value + 1 for label, value in values.items()})
    for file in folder.glob("eval/inference/*/results.json"):
        content = json.loads(file.read_text())
        content["sem_seg"][METRIC] = content["sem_seg"]["mIoU"] - 1
        file.write_text(json.dumps(content))


def rows(printed: str) -> dict[str, list[str]]:
    """The cells of a Markdown table by the first of their line."""
    lines = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("|")]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


def test_a_mean_needs_all_its_values_and_weighs_datasets_equally():
    column = Column("both", (("a",), ("b", "c")))
    assert column.labels == ["a", "b", "c"]
    assert column.value({"a": 10.0, "b": 20.0, "c": 40.0, "d": 1.0}) == 20.0
    assert column.value({"a": 10.0, "b": 20.0}) is None


def test_the_columns_of_mess():
    assert VIEWS["mess"].headings == (*DOMAINS, "Mean")
    assert VIEWS["mess-datasets"].headings == (*(d.label for d in MESS_DATASETS), "Mean")
    for view in (VIEWS["mess"], VIEWS["mess-datasets"]):
        assert view.metric == METRIC
        assert len(view.columns[-1].sources) == 22  # not the five domains
    assert [len(column.sources) for column in VIEWS["mess"].columns[:-1]] == [6, 5, 4, 4, 3]
    medical = VIEWS["mess"].columns[2]
    assert medical.sources[-1] == (
        *("PAXRay-Lungs", "PAXRay-Bones", "PAXRay-Mediastinum", "PAXRay-Diaphragm"),
    )


def test_the_table_by_domain(tmp_path, capsys):
    values = {label: float(index) for index, label in enumerate(PARTS)}
    mess_run(tmp_path / "a", "vitb_384_oft", values)
    mess_run(tmp_path / "b", "vitb_384_enhanced", {k: v + 2 for k, v in values.items()})
    chart = tmp_path / "chart.png"
    collect_results.main([str(tmp_path), "--table", "mess", "--chart", str(chart)])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert chart.exists()
    found = rows(printed.out)
    assert found["method"] == ["backbone", *DOMAINS, "Mean"]
    paxray = fmean(values[label] for label in PARTS if label.startswith("PAXRay"))
    by_dataset = [
        paxray if dataset.label == "PAXRay-4" else values[dataset.label]
        for dataset in MESS_DATASETS
    ]
    spans = [(0, 6), (6, 11), (11, 15), (15, 19), (19, 22), (0, 22)]
    means = [fmean(by_dataset[start:end]) for start, end in spans]
    assert found["H-CLIP"] == ["ViT-B/16", *(f"{mean:.1f}" for mean in means)]
    assert found["HPS-Seg"] == ["ViT-B/16", *(f"{mean + 2:.1f} (+2.0)" for mean in means)]
    assert f"{METRIC} in percent" in printed.out
    collect_results.main([str(tmp_path), "--table", "mess-datasets", "--metric", "mIoU"])
    found = rows(capsys.readouterr().out)["H-CLIP"]
    assert found[1:-1] == [f"{value + 1:.1f}" for value in by_dataset]


def test_a_run_with_datasets_missing_has_no_mean_over_them(tmp_path, capsys):
    values = {label: 50.0 for label in PARTS if label not in ("SUIM", "PAXRay-Bones")}
    mess_run(tmp_path / "a", "vitb_384_oft", values)
    collect_results.main([str(tmp_path), "--table", "mess"])
    printed = capsys.readouterr()
    assert rows(printed.out)["H-CLIP"][1:] == ["50.0", "50.0", "-", "50.0", "-", "-"]
    (warning,) = printed.err.splitlines()
    assert "has no results for 2 of 25 datasets" in warning
    assert warning.endswith(": PAXRay-Bones, SUIM")
    collect_results.main([str(tmp_path), "--table", "mess-datasets", "--format", "csv"])
    heading, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(heading.split(","), row.split(","), strict=True))
    assert (cells["SUIM"], cells["PAXRay-4"], cells["CWFID"], cells["Mean"]) == (
        *("-", "-", "50.0", "-"),
    )


def test_the_six_benchmarks_keep_their_table(tmp_path, capsys):
    mess_run(tmp_path / "a", "vitb_384_oft", {"SUIM": 3.0, "A-150": 32.0})
    collect_results.main([str(tmp_path)])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert rows(printed.out)["method"][1:] == [
        *("A-847", "A-150", "PC-459", "PC-59", "PAS-20", "PAS-20b"),
    ]
    assert rows(printed.out)["H-CLIP"][2] == "33.0"


@pytest.mark.parametrize("name", ["mess", "mess-datasets"])
def test_published_figures_are_consistent(name):
    """A domain's figure is the mean of its datasets', apart from rounding."""
    assert len(published_rows(name, METRIC)) == 21
    domains, datasets = (
        {row.method: row for row in published_rows(view, METRIC)}
        for view in VIEWS
        if "mess" in view
    )
    assert domains.keys() == datasets.keys()
    for row in published_rows(name, METRIC):
        assert set(row.cells) <= set(VIEWS[name].headings)
        assert (row.backbone, row.baseline) == ("published", row.method)
    for method in domains.keys() - {"Best supervised"}:  # the source's two tables differ there
        cells = datasets[method].cells
        for column in VIEWS["mess"].columns:
            members = [
                cells[dataset.label].mean
                for dataset in MESS_DATASETS
                if column.heading in (dataset.domain, "Mean") and dataset.label in cells
            ]
            published = domains[method].cells[column.heading].mean
            assert published == pytest.approx(fmean(members), abs=0.011)
        assert cells["Mean"].mean == domains[method].cells["Mean"].mean


def test_published_figures_stand_below_our_own(tmp_path, capsys):
    for seed in ("1", "2"):
        mess_run(tmp_path / seed, "vitb_384_oft", dict.fromkeys(PARTS, 50.0))
    collect_results.main([str(tmp_path), "--table", "mess", "--published"])
    printed = capsys.readouterr().out
    found = rows(printed)
    assert list(found)[2] == "H-CLIP" and len(found) == 2 + 1 + 21
    assert found["H-CLIP"][:3] == ["ViT-B/16", "2", "50.0 ± 0.0"]
    figures = ["39.9", "39.9", "48.5", "26.0", "34.1", "38.1"]
    assert found["CAT-Seg-L"] == ["published", "-", *figures]
    assert "; published: MESS leaderboard, https://" in printed
    collect_results.main([str(tmp_path), "--table", "mess-datasets", "--published"])
    oracle = rows(capsys.readouterr().out)["SAM-L with oracle points"]
    assert oracle[2 + 8] == "-"  # WorldFloods
    collect_results.main([str(tmp_path), "--table", "mess", "--published", "--format", "latex"])
    assert "SAN-L" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("view", "metric", "problem"),
    [
        ("benchmarks", "mIoU", "no figures for --table benchmarks; choose from mess, mess-dat"),
        ("mess", "mIoU", "the figures are mIoU_present_or_predicted, not mIoU"),
    ],
)
def test_there_are_published_figures_of_mess_alone(view, metric, problem):
    with pytest.raises(UserError, match=f"--published: .*{problem}"):
        published_rows(view, metric)


def test_the_document_has_the_published_figures():
    table = rows(DOCUMENT[DOCUMENT.index("## Published figures") :])
    for row in published_rows("mess", METRIC):
        assert table[row.method] == [f"{cell.mean:.2f}" for cell in row.cells.values()]
