"""Runs and units in turns, and what is made of them."""

from __future__ import annotations

import pytest
import torch

from tools.benchmarking import timing
from tools.benchmarking.stages import OTHER, Part
from tools.benchmarking.timing import Run, Seconds, Unit, measure, spread, summarize, timed

CPU = torch.device("cpu")


class Machine:
    """A unit that takes one second more every time, and a step of known length."""

    device = CPU

    def __init__(self):
        self.calls = []

    def measure(self):
        self.calls.append("unit")
        return Seconds(float(len(self.calls)), 2.0 * len(self.calls))

    def once(self):
        self.calls.append("step")
        parts = {Part("forward", "a"): 6.0, Part("backward", "a"): 2.0}
        return parts | {Part("optimizer", OTHER): 100.0}, 4.0


def test_units_are_measured_between_the_runs():
    machine, noted = Machine(), []
    taken = measure(machine.once, machine, 2, noted.append)
    assert machine.calls == ["unit", "step", "unit", "step", "unit"]
    assert [run.unit for run in taken] == [Seconds(2.0, 4.0), Seconds(4.0, 8.0)]
    assert noted == taken


def test_the_summary_leaves_the_optimizer_out_of_the_total():
    machine = Machine()
    taken = measure(machine.once, machine, 2, lambda run: None)
    summary = summarize(taken, machine)
    assert summary["seconds"]["all"] == [8.0, 8.0]
    assert summary["units"]["all"] == [4.0, 2.0]
    assert summary["cpu_units"]["all"] == [1.0, 0.5]
    assert {name: phase["median"] for name, phase in summary["phases"].items()} == {
        "forward": 6.0,
        "backward": 2.0,
        "optimizer": 100.0,
    }


def test_progress_counts():
    lines = []
    note = timing.progress(lines.append, "run", 2)
    for _ in range(2):
        note(Run({Part("forward", "a"): 3.0}, 1.0, Seconds(2.0, 1.0)))
    assert lines == ["run 1 of 2: 3.000 s, 1.5 units", "run 2 of 2: 3.000 s, 1.5 units"]


def test_median_and_quartiles():
    found = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (found["lower"], found["median"], found["upper"]) == (2.0, 3.0, 4.0)
    assert found["all"] == [4.0, 1.0, 2.0, 3.0, 5.0]
    assert spread([7.0]) == {"median": 7.0, "lower": 7.0, "upper": 7.0, "all": [7.0]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_unit_is_a_product(dtype, monkeypatch):
    shapes = []
    product = torch.mm

    def mm(a, b, out):
        shapes.append((a.shape, a.dtype))
        return product(a, b, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    unit = Unit(CPU, dtype, side=16)
    assert unit.flops == 2 * 16**3
    assert unit.measure().wall > 0
    assert set(shapes) == {((16, 16), dtype)}
    assert len(shapes) == timing.PRODUCTS


def test_a_step_is_timed_by_phase():
    def step(trace):
        trace.begin("forward")
        trace.begin("backward")

    parts, cpu = timed(step, CPU)()
    assert list(parts) == [Part("forward", OTHER), Part("backward", OTHER)]
    assert cpu >= 0
