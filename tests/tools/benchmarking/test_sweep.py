"""Sweeps: every point once, kept, and drawn."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from cat_seg.errors import UserError
from tools.benchmarking import report, sweep
from tools.benchmarking.options import parse
from tools.benchmarking.timing import spread


@pytest.fixture
def measured(monkeypatch):
    """Points measured, in order; the one of value 4 fails once."""
    values = []

    def measure_point(options, value):
        values.append(value)
        if value == 4 and values.count(4) == 1:
            raise UserError("--batch 4 failed: no memory")
        return {
            "options": {"mode": options.mode, "config_file": options.config_file},
            "environment": {"gpu": None, "cpu": "a cpu"},
            "work": {"batch": value, "aggregated": 10, "image_size": [1000, 500]},
            "unit": {"side": 2048, "dtype": "float32", "seconds": spread([0.1])},
            "time": {"units": spread([10.0 * value])},
            "memory": {"kind": "resident", "before": 2**30, "peak": (1 + value) * 2**30},
        }

    monkeypatch.setattr(sweep, "measure_point", measure_point)
    return values


def options(path, *more):
    given = ["--mode", "eval", "--device", "cpu", "--sweep", "batch", "--output", str(path)]
    return parse([*given, *more])


def test_a_sweep_goes_on_after_the_points_that_it_has(tmp_path, measured, capsys):
    path = tmp_path / "batch.json"
    with pytest.raises(UserError, match="--batch 4 failed"):
        sweep.run_sweep(options(path, "--points", "8", "2", "4"))
    assert list(report.read(path)["points"]) == ["2"]
    assert not path.with_suffix(".png").exists()
    sweep.run_sweep(options(path, "--points", "8", "2", "4"))
    assert measured == [2, 4, 4, 8]
    sweep.run_sweep(options(path, "--points", "3"))
    assert measured == [2, 4, 4, 8, 3]
    content = report.read(path)
    assert list(content["points"]) == ["2", "3", "4", "8"]
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.width > 500
    last_table = capsys.readouterr().out.split("GiB per image")[-1]
    assert [line.split("|")[2].strip() for line in last_table.splitlines()[2:6]] == [
        *("20", "30", "40", "80")
    ]


def test_another_sweep_is_not_mixed_in(tmp_path, measured):
    path = tmp_path / "batch.json"
    sweep.run_sweep(options(path, "--points", "1"))
    for more in (["--runs", "7"], ["SOLVER.BASE_LR", "1.0"]):
        with pytest.raises(UserError, match="belongs to another sweep"):
            sweep.run_sweep(options(path, "--points", "1", *more))
    assert measured == [1]


def test_figures_per_swept_thing(measured):
    points = {"2": sweep.measure_point(options("a.json"), 2)}
    (row,) = sweep.curves("batch", points)
    assert row["units"] == 20
    assert row["units each"] == 10
    assert (row["GiB"], row["GiB each"], row["peak GiB"]) == (2, 1, 3)
    assert sweep.curves("classes", points)[0]["units each"] == 2
    assert sweep.curves("size", points)[0]["units each"] == 40


def test_a_point_is_a_process_of_its_own(monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        report.write({"a": 1}, sweep.Path(command[command.index("--output") + 1]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    given = options("a.json", "--image-size", "64", "--runs", "2", "SOLVER.BASE_LR", "1.0")
    assert sweep.measure_point(given, 3) == {"a": 1}
    command = commands[0]
    assert command[:2] == [sys.executable, str(sweep.TOOL)]
    assert command[-2:] == ["SOLVER.BASE_LR", "1.0"]
    again = parse(command[2:])
    assert (again.batch, again.runs, again.image_size, again.stages) == (3, 2, (64, 64), False)


def test_a_failed_point_is_one_line(monkeypatch):
    failed = subprocess.CompletedProcess([], 2, stderr="building the model\nerror: no such key\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"^--batch 3 failed: error: no such key; earlier points"):
        sweep.measure_point(options("a.json"), 3)
