"""Time a step alternately with a matrix product, the unit of the machine's speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tools.benchmarking.flops import product_flops
from tools.benchmarking.stages import Part, Trace

# Side of the square matrices whose product is the unit of time.
UNIT_SIDES = {"cpu": 2048, "cuda": 8192}
PRODUCTS = 3  # products per measurement of the unit; the median counts
APART = "optimizer"  # phase that is excluded from the total


@dataclass(frozen=True)
class Seconds:
    """Wall time, and CPU time of all threads of the process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Run:
    """One step: seconds by part, total CPU seconds, and the unit measured around it."""

    parts: dict[Part, float]
    cpu: float
    unit: Seconds

    def phase(self, name: str) -> float:
        """Return the seconds spent in a phase."""
        return sum(spent for part, spent in self.parts.items() if part.phase == name)

    @property
    def total(self) -> float:
        """Seconds spent in all phases except the optimizer's."""
        return sum(spent for part, spent in self.parts.items() if part.phase != APART)


Once = Callable[[], tuple[dict[Part, float], float]]


class Unit:
    """Product of two square matrices, the unit of time.

    Args:
        device: device of the product.
        dtype: data type of the matrices.
        side: side of the matrices; by default the device's entry in UNIT_SIDES.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, side: int | None = None) -> None:
        self.device = device
        self.dtype = dtype
        self.side = side or UNIT_SIDES[device.type]
        self.flops = product_flops(self.side)
        generator = torch.Generator(device).manual_seed(0)
        shape = (2, self.side, self.side)
        pair = torch.rand(shape, generator=generator, device=device).to(dtype)
        out = torch.empty_like(pair[0])

        def multiply(trace: Trace) -> None:
            trace.begin("product")
            torch.mm(*pair, out=out)

        self._once = timed(multiply, device)

    def measure(self) -> Seconds:
        """Measure the current seconds of one product."""
        taken = [self._once() for _ in range(PRODUCTS)]
        walls = [sum(parts.values()) for parts, _ in taken]
        return Seconds(statistics.median(walls), statistics.median(cpu for _, cpu in taken))


def timed(step: Callable[[Trace], None], device: torch.device) -> Once:
    """Wrap a step that reports phases to a trace; calling the result returns parts and CPU time."""

    def once() -> tuple[dict[Part, float], float]:
        trace = trace_of(device)
        start = time.process_time()
        step(trace)
        trace.end()
        return trace.spent(), time.process_time() - start

    return once


def trace_of(device: torch.device) -> Trace:
    """Return a trace in seconds: by CUDA events on a CUDA device, otherwise by the wall clock."""
    if device.type != "cuda":
        return Trace(time.perf_counter, lambda start, stop: stop - start)

    def event() -> torch.cuda.Event:
        recorded = torch.cuda.Event(enable_timing=True)
        recorded.record()
        return recorded

    def difference(start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        stop.synchronize()
        return start.elapsed_time(stop) / 1000

    return Trace(event, difference)


def measure(once: Once, unit: Unit, runs: int, note: Callable[[Run], None]) -> list[Run]:
    """Run a step `runs` times, measuring the unit before and after each run.

    Args:
        once: runs the step and returns its parts and CPU time.
        unit: the unit to measure.
        runs: number of runs.
        note: called with each finished run.
    """
    taken: list[Run] = []
    before = unit.measure()
    for _ in range(runs):
        parts, cpu = once()
        after = unit.measure()
        between = Seconds((before.wall + after.wall) / 2, (before.cpu + after.cpu) / 2)
        taken.append(Run(parts, cpu, between))
        note(taken[-1])
        before = after
    return taken


def progress(note: Callable[[str], None], what: str, runs: int) -> Callable[[Run], None]:
    """Return a callback that reports each finished run in one line."""
    done: list[Run] = []

    def after(run: Run) -> None:
        done.append(run)
        units = run.total / run.unit.wall
        note(f"{what} {len(done)} of {runs}: {run.total:.3f} s, {units:.1f} units")

    return after


def summarize(taken: list[Run], unit: Unit) -> dict[str, Any]:
    """Summarize seconds and units of all runs, CPU-time units on a CPU, and seconds by phase."""
    summary: dict[str, Any] = {
        "seconds": spread([run.total for run in taken]),
        "units": spread([run.total / run.unit.wall for run in taken]),
    }
    if unit.device.type == "cpu":
        summary["cpu_units"] = spread([run.cpu / run.unit.cpu for run in taken])
    phases = dict.fromkeys(part.phase for run in taken for part in run.parts)
    summary["phases"] = {name: spread([run.phase(name) for run in taken]) for name in phases}
    return summary


def describe_unit(taken: list[Run], unit: Unit) -> dict[str, Any]:
    """Return the unit's size, and its seconds during the measurement."""
    return {
        "side": unit.side,
        "dtype": str(unit.dtype).removeprefix("torch."),
        "flops": unit.flops,
        "seconds": spread([run.unit.wall for run in taken]),
    }


def spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Return the median, the quartiles and the values themselves."""
    lower, middle, upper = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )
    return {"median": middle, "lower": lower, "upper": upper, "all": list(values)}
