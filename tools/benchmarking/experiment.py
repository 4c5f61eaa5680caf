"""Measure one step of a model: time, memory, operations and stages."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.benchmarking.flops import FlopCounter
from tools.benchmarking.memory import PeakMemory
from tools.benchmarking.options import Options, build_config
from tools.benchmarking.stages import Part, Trace, observed
from tools.benchmarking.timing import Unit, describe_unit, measure, progress, summarize, timed
from tools.benchmarking.workloads import Workload, machine_settings

STAGE_RUNS = 3  # runs with hooks; the median one is reported

Note = Callable[[str], None]


def run_model(options: Options, note: Note) -> dict[str, Any]:
    """Measure a train, eval, slide or text step.

    Args:
        options: the command line.
        note: called with progress messages.

    Returns:
        `work`, `time`, `unit`, `memory` and `stages`, for the report and JSON.

    Raises:
        UserError: the config is invalid.
    """
    with TemporaryDirectory() as folder:
        cfg = build_config(options, Path(folder))
        note("building the model")
        workload = Workload(cfg, options)
    device = workload.model.device
    with machine_settings(options, cfg):
        unit = Unit(device, workload.dtype)
        unit.measure()
        gc.collect()
        memory = PeakMemory(device)
        memory.start()
        once = timed(workload, device)
        for index in range(options.warmup):
            note(f"warm-up {index + 1} of {options.warmup}")
            once()
        taken = measure(once, unit, options.runs, progress(note, "run", options.runs))
        result = {
            "work": workload.described,
            "time": summarize(taken, unit),
            "unit": describe_unit(taken, unit),
            "memory": memory.read(),
        }
        if options.stages and not cfg.MODEL.COMPILE:
            result |= _by_stage(workload, unit, min(STAGE_RUNS, options.runs), note)
    return result


def _by_stage(workload: Workload, unit: Unit, runs: int, note: Note) -> dict[str, Any]:
    def step(trace: Trace) -> None:
        with observed(workload.model, trace):
            workload(trace)
            trace.end()

    once = timed(step, workload.model.device)
    taken = measure(once, unit, runs, progress(note, "stages, run", runs))
    taken.sort(key=lambda run: run.total / run.unit.wall)
    middle = taken[len(taken) // 2]
    note("counting operations")
    with FlopCounter() as counter:
        trace = Trace(lambda: counter.total, lambda start, stop: stop - start)
        step(trace)
    return {"stages": {"unit": middle.unit.wall, **by_stage(middle.parts, trace.spent())}}


def by_stage(seconds: dict[Part, float], flops: dict[Part, float]) -> dict[str, Any]:
    """Return seconds and operations by phase: `rows`, one per stage, and their `sum`."""
    rows: dict[str, dict[str, Any]] = {}
    total: dict[str, Any] = {"stage": "sum", "seconds": {}, "flops": {}}
    for key, parts in (("seconds", seconds), ("flops", flops)):
        for (phase, stage), value in parts.items():
            row = rows.setdefault(stage, {"stage": stage, "seconds": {}, "flops": {}})
            row[key][phase] = value
            total[key][phase] = total[key].get(phase, 0) + value
    return {"rows": list(rows.values()), "sum": total}
