"""MESS from the command line, on miniatures of some of its datasets and with a tiny model."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import fmean

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from sklearn.metrics import jaccard_score

from cat_seg.cli import evaluate
from cat_seg.data import LABELS
from cat_seg.data.mess import DOMAINS, MESS_DATASETS
from cat_seg.data.registration import spec_of
from tests.mess_miniatures import COUNT, IGNORED, PLACES, write
from tests.tiny import share_tokenizers, tiny_cfg, tiny_model

# All of one domain, and one dataset with file endings of its own.
MEDICAL = [
    s.name for d in MESS_DATASETS if d.domain == "Medical Sciences" for s in d.parts.values()
]
PRESENT = [*MEDICAL, "dark_zurich_sem_seg_val"]
METRIC = "mIoU_present_or_predicted"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("mess")
    (root / "config.yaml").write_text(tiny_cfg(root, "INPUT.MIN_SIZE_TEST", 0).dump())
    torch.save({"model": tiny_model().state_dict()}, root / "model.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root / "datasets"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        share_tokenizers(patch)
        yield root


@pytest.fixture(scope="module")
def truth(place) -> dict[str, list[np.ndarray]]:
    return {name: write(place / "datasets", name) for name in PRESENT}


def run(place: Path, *given: str) -> tuple[int, str, str]:
    """Run the command; gives its exit status, what it printed, and its error."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    pairs = ("MODEL.WEIGHTS", str(place / "model.pth"), "OUTPUT_DIR", str(place / "out"))
    arguments = ["hps-seg evaluate", "--config-file", str(place / "config.yaml"), *given, *pairs]
    arguments += ["DATALOADER.NUM_WORKERS", "0", "TEST.SAVE_PREDICTIONS", "True"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", arguments)
        try:
            evaluate.main()
        except SystemExit as stopped:
            status = stopped.code
    for name in ("cat_seg", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error:")]
    return status, out.getvalue(), "\n".join(errors)


def cells(printed: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first heading is this, by their first cell."""
    found = {}
    for line in printed[printed.index(f"| {heading} ") :].splitlines():
        if not line.startswith("|"):
            break
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        found[first] = rest
    return found


@pytest.fixture(scope="module")
def whole_group(place, truth) -> str:
    """What `--benchmarks MESS` prints."""
    status, printed, error = run(place, "--benchmarks", "MESS")
    assert (status, error) == (0, "")
    return printed


def test_what_is_on_disk_is_evaluated_and_the_rest_is_listed(whole_group, place):
    found = cells(whole_group, "Benchmark")
    assert list(found)[2:] == [LABELS[name] for name in PLACES]
    for name in PLACES:
        row = found[LABELS[name]]
        assert row[0] == "missing" if name not in PRESENT else row[3] == str(COUNT)
    missing = [line for line in whole_group.splitlines() if " missing: dataset " in line]
    assert len(missing) == len(PLACES) - len(PRESENT)
    assert any("prepare_datasets.prepare_suim`" in line for line in missing)


@pytest.mark.parametrize("name", ["kvasir_instrument_sem_seg_test", "dark_zurich_sem_seg_val"])
def test_metrics_are_those_of_the_saved_predictions(whole_group, place, truth, name):
    folder = place / "out/inference" / name
    content = json.loads((folder / "results.json").read_text())
    predicted = [np.full(label.shape, -1) for label in truth[name]]
    for entry in json.loads((folder / "sem_seg_predictions.json").read_text()):
        index = int(Path(entry["file_name"]).name[:3])
        predicted[index][mask_util.decode(entry["segmentation"]) > 0] = entry["category_id"]
    expected, answers = (np.concatenate(maps).ravel() for maps in (truth[name], predicted))
    known = expected != IGNORED
    score = 100 * jaccard_score(expected[known], answers[known], average="macro", zero_division=0)
    assert content["sem_seg"][METRIC] == pytest.approx(score)
    assert content["benchmark"] == LABELS[name]
    assert content["vocabulary"] == spec_of(name).classes()
    assert content["counts"]["labeled_pixels"] == known.sum()


def test_the_table_by_domain_has_means_of_complete_domains(whole_group, place):
    found = cells(whole_group, "MESS")
    assert found["MESS"] == [METRIC, "mIoU", "datasets"]
    assert list(found)[2:] == [*DOMAINS, "Mean"]
    values = {}
    for name in MEDICAL:
        content = json.loads((place / "out/inference" / name / "results.json").read_text())
        values[name] = content["sem_seg"][METRIC]
    organs = [value for name, value in values.items() if name.startswith("paxray")]
    others = [value for name, value in values.items() if not name.startswith("paxray")]
    mean = fmean([*others, fmean(organs)])
    assert found["Medical Sciences"][::2] == [f"{mean:.2f}*", "4 of 4"]
    assert found["General"] == ["-", "-", "1 of 6"]
    assert found["Mean"] == ["-", "-", "5 of 22"]


def test_single_datasets_are_kept_and_must_be_there(whole_group, place):
    status, printed, error = run(place, "--benchmarks", "dark-zurich", "CHASE DB1", "suim")
    assert status == 2
    assert list(cells(printed, "Benchmark"))[2:] == ["Dark Zurich", "CHASE DB1", "SUIM"]
    assert error.startswith("error: SUIM missing: dataset suim_sem_seg_test not found in ")
    assert "prepare_datasets.prepare_suim`" in error


def test_other_benchmarks_have_no_table_by_domain(place, whole_group):
    status, printed, error = run(place, "--benchmarks", "A-150", "kvasir-instrument")
    assert status == 2 and "A-150 missing" in error
    assert cells(printed, "MESS")["Medical Sciences"][-1] == "1 of 4"
    assert "MESS" not in run(place, "--benchmarks", "A-150")[1]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--benchmarks", "suim"], "dataset suim_sem_seg_test not found in .*prepare_suim`"),
        (["--benchmarks", "MESS"], r"no benchmark dataset found in .*: BDD100K, .*docs/mess\.md$"),
        (["--check"], r"no benchmark dataset found in .*; see datasets/README\.md"),
        (["--check", "--benchmarks", "suim"], "dataset suim_sem_seg_test not found in .*suim`"),
        (["--check", "--benchmarks", "MESS"], r"25 of 25 datasets not found in .*docs/mess\.md$"),
        (["--check", "--benchmarks", "MESS", "A-150"], r"mess\.md and datasets/README\.md$"),
    ],
)
def test_missing_data_is_one_line(place, tmp_path, monkeypatch, given, problem):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    status, _, error = run(place, *given)
    assert status == 2
    assert len(error.splitlines()) == 1
    assert re.search(problem, error)


def test_check_passes_where_all_that_is_asked_for_is_there(place, truth):
    assert run(place, "--check", "--benchmarks", *MEDICAL) == (0, "", "")
