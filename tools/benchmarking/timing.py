"""Times of a step beside the machine's matrix-multiply rate, taken in turns."""

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
PRODUCTS = 3  # the middle one of so many is the rate of the moment
APART = "optimiser"  # the phase that the total leaves out


@dataclass(frozen=True)
class Seconds:
    """Wall time, and the CPU time of all threads of the process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Run:
    """One step: what its parts took, in seconds, all of its CPU time, and a unit around then."""

    parts: dict[Part, float]
    cpu: float
    unit: Seconds

    def phase(self, name: str) -> float:
        """Seconds spent in a phase."""
        return sum(spent for part, spent in self.parts.items() if part.phase == name)

    @property
    def total(self) -> float:
        """Seconds spent in all phases but the optimiser's."""
        return sum(spent for part, spent in self.parts.items() if part.phase != APART)


Once = Callable[[], tuple[dict[Part, float], float]]


class Unit:
    """The product of two square matrices, the machine's measure of arithmetic.

    Args:
        device: where it is computed.
        dtype: of the matrices.
        side: of the matrices; by default UNIT_SIDES's of the device.
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
        """Seconds of one product now."""
        taken = [self._once() for _ in range(PRODUCTS)]
        walls = [sum(parts.values()) for parts, _ in taken]
        return Seconds(statistics.median(walls), statistics.median(cpu for _, cpu in taken))


def timed(step: Callable[[Trace], None], device: torch.device) -> Once:
    """Time a step that tells a trace its phases: a function that gives its parts and CPU time."""

    def once() -> tuple[dict[Part, float], float]:
        trace = trace_of(device)
        start = time.process_time()
        step(trace)
        trace.end()
        return trace.spent(), time.process_time() - start

    return once


def trace_of(device: torch.device) -> Trace:
    """A trace in seconds: of the device where it is CUDA, else of the clock on the wall."""
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
    """Take a step `runs` times, with a unit measured before and after each.

    Args:
        once: takes the step; gives its parts and its CPU time.
        note: called after every run, with it.
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
    """Count runs, one line each."""
    done: list[Run] = []

    def after(run: Run) -> None:
        done.append(run)
        units = run.total / run.unit.wall
        note(f"{what} {len(done)} of {runs}: {run.total:.3f} s, {units:.1f} units")

    return after


def summarise(taken: list[Run], unit: Unit) -> dict[str, Any]:
    """Seconds and units of all runs, on a CPU also of its time alone, and seconds by phase."""
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
    """The unit's size, and its seconds while the step was measured."""
    return {
        "side": unit.side,
        "dtype": str(unit.dtype).removeprefix("torch."),
        "flops": unit.flops,
        "seconds": spread([run.unit.wall for run in taken]),
    }


def spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Median and quartiles, and the values themselves."""
    lower, middle, upper = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )
    return {"median": middle, "lower": lower, "upper": upper, "all": list(values)}
