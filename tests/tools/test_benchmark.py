"""The benchmark on tiny models: what it measures, writes and prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from tests.tiny import MANY_CLASSES, share_tokenizers, tiny_cfg
from tools import benchmark
from tools.benchmarking import dataload, start, timing
from tools.benchmarking.first_result import main as first_result

ENHANCED = "configs/vitb_384_enhanced.yaml"
SIDE = 64


@pytest.fixture
def measure(tmp_path, monkeypatch, capsys):
    """Runs the tool on a tiny config; returns its JSON and what it printed."""
    share_tokenizers(monkeypatch)
    monkeypatch.setitem(timing.UNIT_SIDES, "cpu", SIDE)
    config = tmp_path / "config.yaml"
    config.write_text(tiny_cfg(tmp_path, base=ENHANCED).dump())

    def run(*given):
        output = tmp_path / "result.json"
        fixed = ["--config-file", str(config), "--device", "cpu", "--output", str(output)]
        benchmark.main([*fixed, *map(str, given)])
        return json.loads(output.read_text()), capsys.readouterr().out

    return run


def total(parts):
    return sum(value for phase, value in parts.items() if phase != "optimizer")


@pytest.mark.parametrize(
    ("mode", "phases", "some_stages"),
    [
        (
            "train",
            ["forward", "backward", "optimizer"],
            {"adapters", "text tower", "image tower", "AFR", "HPA", "layer 1: classes", "loss"},
        ),
        ("eval", ["forward"], {"image tower", "cost volume", "decoder 2", "answer size"}),
        ("slide", ["forward"], {"image tower", "windows", "layer 0: spatial"}),
        ("text", ["forward", "backward"], {"adapters", "text tower"}),
    ],
)
def test_a_model_is_measured_whole_and_by_stage(measure, mode, phases, some_stages):
    result, printed = measure("--mode", mode, "--runs", "2")
    assert list(result["time"]["phases"]) == phases
    assert len(result["time"]["seconds"]["all"]) == 2
    assert result["unit"]["flops"] == 2 * SIDE**3
    assert result["memory"]["peak"] >= result["memory"]["before"] > 0
    assert result["work"]["classes"] == 5
    assert result["environment"]["torch"] == torch.__version__

    rows = {row["stage"]: row for row in result["stages"]["rows"]}
    assert some_stages < rows.keys()
    if mode in ("eval", "slide"):  # kept from the warm-up
        assert "text tower" not in rows
    summed = Counter()
    for row in rows.values():
        summed.update(row["flops"])
    assert dict(summed) == result["stages"]["sum"]["flops"]
    assert rows["other"]["flops"].get("forward", 0) == 0
    seconds = sum(total(row["seconds"]) for row in rows.values())
    assert seconds == pytest.approx(total(result["stages"]["sum"]["seconds"]))
    assert all(f"| {stage} " in printed for stage in some_stages)


def test_operations_grow_with_the_classes_that_go_on(measure):
    def forward(*given):
        result, _ = measure("--mode", "eval", "--runs", "1", *given)
        rows = {row["stage"]: row["flops"]["forward"] for row in result["stages"]["rows"]}
        return rows["image tower"], rows["layer 0: spatial"] + rows["decoder 2"], result["work"]

    tower4, aggregator4, _ = forward("--classes", "4")
    tower8, aggregator8, _ = forward("--classes", "8")
    _, aggregator12, work = forward("--classes", len(MANY_CLASSES))
    assert tower4 == tower8
    assert aggregator4 < aggregator8 == aggregator12
    assert (work["classes"], work["aggregated"]) == (12, 8)


def test_batches_micro_batches_and_amp(measure):
    common = ("--mode", "train", "--runs", "1", "--image-size", "64", "96", "--threads", "1")
    single, _ = measure(*common, "--batch", "2", "--amp")
    double, _ = measure(*common, "--batch", "2", "SOLVER.ACCUMULATION_STEPS", "2")
    assert single["work"] | {"batch": 2, "image_size": [64, 96]} == single["work"]
    assert (single["unit"]["dtype"], double["unit"]["dtype"]) == ("bfloat16", "float32")
    tower = [
        next(r["flops"] for r in result["stages"]["rows"] if r["stage"] == name)["forward"]
        for name in ("image tower", "text tower")
        for result in (single, double)
    ]
    assert 2 * tower[0] == tower[1]  # HPA encodes the batch before its parts
    assert tower[2] == tower[3]  # the parts share the text features


def test_micro_batches_that_do_not_fill_the_batch_are_refused(measure, capsys):
    with pytest.raises(SystemExit):
        measure("--mode", "train", "--batch", "3", "SOLVER.ACCUMULATION_STEPS", "2")
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: SOLVER.IMS_PER_BATCH is 3")


def test_the_whole_alone(measure):
    result, printed = measure("--mode", "eval", "--runs", "1", "--warmup", "0", "--no-stages")
    assert "stages" not in result
    assert "counted" not in printed


def test_the_training_loader(measure, monkeypatch):
    monkeypatch.setattr(dataload, "IMAGES", 4)
    result, printed = measure(
        *("--mode", "dataload", "--runs", "2", "--batch", "2", "DATALOADER.NUM_WORKERS", "1")
    )
    assert result["work"] == {"batch": 2, "workers": 1, "step_seconds": 0.0}
    assert len(result["time"]["seconds"]["all"]) == 2
    assert len(result["memory"]["after_each_round"]) == 2
    assert result["memory"]["peak"] > 2**20
    assert "largest worker's memory, peak" in printed
    # The dataset is registered for the one measurement only.
    measure("--mode", "dataload", "--runs", "1", "DATALOADER.NUM_WORKERS", "0")


def test_the_first_result_of_a_process(measure, monkeypatch, capsys):
    def run(command, **_):
        assert command[: len(start.COMMAND)] == [*start.COMMAND]
        capsys.readouterr()
        first_result(*command[len(start.COMMAND) :])
        return subprocess.CompletedProcess(command, 0, stdout=capsys.readouterr().out)

    monkeypatch.setattr(start, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(start, "_children_cpu", lambda: 0.0)
    result, _ = measure("--mode", "start", "--runs", "1", "--warmup", "0")
    phases = result["time"]["phases"]
    assert list(phases) == ["import", "build", "load", "encode classes", "image"]
    assert result["time"]["seconds"]["median"] == pytest.approx(
        sum(phase["median"] for phase in phases.values())
    )
    assert result["memory"]["peak"] > 0


def test_a_process_that_fails_is_one_line(measure, monkeypatch, capsys):
    command = (sys.executable, "-c", "raise SystemExit('no luck')")
    monkeypatch.setattr(start, "COMMAND", command)
    with pytest.raises(SystemExit) as status:
        measure("--mode", "start", "--runs", "1", "--warmup", "0")
    assert status.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the process")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--runs", "0"], "error: --runs 0: give 1 or more"),
        (["--device", "cpu", "NO.KEY", "1"], "error: NO.KEY 1: "),
        (["--config-file", "none.yaml", "--device", "cpu"], "error: --config-file none.yaml"),
        (["--device", "tpu9"], "error: MODEL.DEVICE is 'tpu9'"),
        (["--compare", "none.json", "none.json"], "error: none.json is not a result"),
    ],
)
def test_what_is_wrong_is_one_line(given, complaint, capsys):
    with pytest.raises(SystemExit) as status:
        benchmark.main(given)
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(complaint)


def test_comparing_two_results(measure, tmp_path, capsys):
    measure("--mode", "eval", "--runs", "1")
    path = str(tmp_path / "result.json")
    benchmark.main(["--compare", path, path])
    assert "| image tower, units" in capsys.readouterr().out


def test_processes_reduce_what_trains_and_nothing_else(measure, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result, printed = measure("--mode", "ddp", "--runs", "1", "--warmup", "0", "--batch", "2")
    work, taken = result["work"], result["time"]
    assert (work["processes"], work["batch"]) == (2, 2)
    assert 0 < work["reduced_MiB"] == work["trained_MiB"] < work["all_parameters_MiB"] / 2
    alone, together = taken["seconds_alone"]["median"], taken["seconds"]["median"]
    assert work["efficiency"] == pytest.approx(alone / together, abs=1e-3)
    assert "reduced MiB" in printed
