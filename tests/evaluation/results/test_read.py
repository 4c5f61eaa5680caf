"""Runs read back from their folders."""

from __future__ import annotations

import json

import pytest

from cat_seg.errors import UserError
from cat_seg.evaluation.results.read import read_runs
from tests.run_folders import write_result, write_run


def test_a_run_is_its_config_and_its_results(tmp_path):
    folder = write_run(tmp_path / "any_name", "vitb_384_enhanced", {"A-150": 31.8, "PC-59": 57.5})
    (run,) = read_runs([str(folder)])
    assert (run.folder, run.method.name, run.backbone) == (folder, "HPS-Seg", "ViT-B/16")
    assert {label: r.metrics["mIoU"] for label, r in run.results.items()} == {
        "A-150": 31.8,
        "PC-59": 57.5,
    }
    assert run.results["A-150"].metrics["IoU-cat"] is None


def test_a_run_without_results_is_named_by_its_config(tmp_path):
    (run,) = read_runs([str(write_run(tmp_path / "run", "vitl_336"))])
    assert (run.method.name, run.backbone, run.results) == ("CAT-Seg", "ViT-L/14@336px", {})


def test_the_config_that_was_evaluated_counts(tmp_path):
    folder = write_run(tmp_path / "run", "vitb_384_oft")
    write_result(folder / "eval", "A-150", 31.8, "configs/vitb_384_hyperbolic.yaml")
    (run,) = read_runs([str(folder)])
    assert run.method.name == "HyperCLIP"


def test_results_beside_the_training_count_where_the_protocol_has_none(tmp_path):
    folder = write_run(tmp_path / "run", results={"A-150": 31.8})
    write_result(folder, "A-150", 10.0)
    write_result(folder, "PC-59", 50.0)
    (run,) = read_runs([str(folder)])
    found = {label: result.metrics["mIoU"] for label, result in run.results.items()}
    assert found == {"A-150": 31.8, "PC-59": 50.0}


def test_results_that_only_name_their_dataset_are_known(tmp_path):
    folder = write_run(tmp_path / "run")
    file = write_result(folder / "eval", "PAS-20", 94.6)
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: content[key] for key in ("dataset", "sem_seg")}))
    write_result(folder / "eval", "A-150", 31.8, benchmark=None, dataset="my_own_dataset")
    (run,) = read_runs([str(folder)])
    assert list(run.results) == ["PAS-20"]


def test_a_folder_of_runs_stands_for_them_and_none_counts_twice(tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    (tmp_path / "results.md").touch()
    (tmp_path / "empty").mkdir()
    runs = read_runs([str(tmp_path), str(second), str(tmp_path / "b" / ".." / "a")])
    assert [run.folder for run in runs] == [first, second]


def refusal(*folders) -> str:
    with pytest.raises(UserError) as refused:
        read_runs(map(str, folders))
    (line,) = str(refused.value).splitlines()
    return line


def test_other_checkpoints_of_a_run_are_runs_of_their_own(tmp_path):
    folder = write_run(tmp_path / "run", "vitb_384_oft", {"A-150": 32.0})
    write_result(folder / "eval_model_0039999", "A-150", 31.0)
    runs = read_runs([str(folder), str(folder / "eval_model_0039999")])
    assert [run.results["A-150"].metrics["mIoU"] for run in runs] == [32.0, 31.0]
    # Downloaded weights in a folder that no training wrote.
    write_result(tmp_path / "downloads/eval_h_clip", "A-150", 30.0)
    (run,) = read_runs([str(tmp_path / "downloads")])
    assert run.results["A-150"].metrics["mIoU"] == 30.0


def test_folders_that_are_no_runs_are_refused(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    assert f"{tmp_path} contains no run" in refusal(tmp_path)
    write_run(tmp_path / "run")
    assert "is not a folder" in refusal(tmp_path / "run" / "config.yaml")


@pytest.mark.parametrize(
    "content",
    ["", '{"sem_seg": {"mIoU": 31', "[]", "{}", '{"sem_seg": []}', '{"sem_seg": {"mIoU": "x"}}'],
)
def test_malformed_results_are_one_line_that_names_the_file(tmp_path, content):
    folder = write_run(tmp_path / "run")
    file = write_result(folder / "eval", "A-150", 31.8)
    file.write_text(content)
    assert str(file) in refusal(folder)


@pytest.mark.parametrize("content", ["", "MODEL: {", "- 1", "MODEL: {META_ARCHITECTURE: CATSeg}"])
def test_malformed_configs_are_one_line_that_names_the_file(tmp_path, content):
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text(content)
    assert str(folder / "config.yaml") in refusal(folder)


def test_results_without_any_config_are_refused(tmp_path):
    file = write_result(tmp_path / "eval", "A-150", 31.8)
    file.write_text(json.dumps({"benchmark": "A-150", "sem_seg": {"mIoU": 31.8}}))
    assert "has no config.yaml" in refusal(tmp_path)
