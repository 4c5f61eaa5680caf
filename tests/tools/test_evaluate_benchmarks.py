from __future__ import annotations

import sys

import pytest

from cat_seg.data import BENCHMARKS
from tools import evaluate_benchmarks


def run(monkeypatch, *given):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sys, "argv", ["evaluate_benchmarks.py", *map(str, given)])
    evaluate_benchmarks.main()


def test_the_table_has_a_dash_for_what_was_not_measured():
    results = {"ade20k_150_test_sem_seg": {"mIoU": 31.756, "mACC": 50.0, "pACC": 70.25, "fwIoU": 1}}
    rows = evaluate_benchmarks.table(results).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0] == ["Benchmark", "mIoU", "mACC", "pACC"]
    assert [row[0] for row in cells[2:]] == [b.label for b in BENCHMARKS]
    assert ["A-150", "31.76", "50.00", "70.25"] in cells
    assert ["A-847", "-", "-", "-"] in cells


@pytest.mark.parametrize("found", [["A-150"], ["A-150", "PAS-20"]])
def test_what_is_on_disk_is_evaluated_by_the_protocol(tmp_path, monkeypatch, capsys, found):
    datasets = [b.dataset for b in BENCHMARKS if b.label in found]
    seen = {}

    def evaluate(cfg, resume):
        seen["cfg"] = cfg
        results = {name: {"sem_seg": {"mIoU": 12.5}} for name in cfg.DATASETS.TEST}
        return results if len(results) > 1 else results[cfg.DATASETS.TEST[0]]

    monkeypatch.setattr(evaluate_benchmarks, "is_on_disk", lambda name: name in datasets)
    monkeypatch.setattr(evaluate_benchmarks, "evaluate", evaluate)
    monkeypatch.setattr(evaluate_benchmarks, "setup", lambda cfg, args: cfg)
    run(monkeypatch, "MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_HEADS", "2")
    cfg = seen["cfg"]
    assert list(cfg.DATASETS.TEST) == datasets
    assert cfg.TEST.SLIDING_WINDOW
    assert cfg.MODEL.SEM_SEG_HEAD.POOLING_SIZES == [1, 1]
    assert cfg.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON == ""
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_HEADS == 2
    assert capsys.readouterr().out.count("12.50") == len(found)


def test_nothing_on_disk_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(SystemExit) as status:
        run(monkeypatch, "MODEL.DEVICE", "cpu")
    assert status.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: no benchmark is in {tmp_path}")
