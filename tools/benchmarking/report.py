"""Benchmark results as terminal tables and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from cat_seg.errors import UserError
from cat_seg.evaluation.record import source_commit
from cat_seg.utils.files import atomic_write
from cat_seg.utils.machine import cpu_name
from tools.benchmarking.options import Options, uses_tf32
from tools.benchmarking.stages import OTHER
from tools.benchmarking.workloads import BACKWARD, FORWARD

GIB = 2**30
COUNTED = (FORWARD, BACKWARD)  # the phases that are broken down by stage
FORMAT = "github"
LEAST_FLOOR = 0.005  # units; ratios to a smaller floor are meaningless
Result = Mapping[str, Any]


def environment(options: Options) -> dict[str, Any]:
    """Return what results depend on besides the options: hardware, versions and the commit."""
    on_gpu = options.device.startswith("cuda")
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "threads": options.threads or torch.get_num_threads(),
        "tf32": uses_tf32(options),
        "commit": source_commit(),
    }


def described(options: Options) -> dict[str, Any]:
    """Return the options as JSON-serializable values."""
    return {key: str(v) if isinstance(v, Path) else v for key, v in asdict(options).items()}


def write(content: Any, path: Path) -> None:
    """Write JSON atomically.

    Raises:
        UserError: `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "w") as file:
            json.dump(content, file, indent=1)
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror}") from error


def read(path: str | Path) -> Any:
    """Read JSON written by `write`.

    Raises:
        UserError: `path` cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a result of this tool: {error}") from error


def text(result: Result) -> str:
    """Format all tables of one result."""
    options, machine = result["options"], result["environment"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    work = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result["work"].items())
    head = f"{options['mode']} of {options['config_file']}: {work}\non {where}, torch"
    head += f" {machine['torch']}, commit {machine['commit']}"
    tables = [head, _whole(result)]
    if "stages" in result:
        tables.append(_stages(result))
    return "\n\n".join(tables)


def _whole(result: Result) -> str:
    rows = []
    for name, value in result["time"].items():
        if name == "phases":
            rows += [[f"  {p}, s", s["median"], _quartiles(s)] for p, s in value.items()]
        else:
            rows.append([name.replace("_", " "), value["median"], _quartiles(value)])
    rows += [[name, count, ""] for name, count in result.get("counts", {}).items()]
    if "unit" in result:
        rows += _unit_rows(result)
    rows += _memory_rows(result["memory"])
    return tabulate(rows, ["", "median", "quartiles"], FORMAT, floatfmt=".4g", missingval="")


def _unit_rows(result: Result) -> list[list[Any]]:
    unit, seconds = result["unit"], result["time"]["seconds"]["median"]
    name = f"unit: {unit['side']}x{unit['side']} product, {unit['dtype']}, s"
    rows = [[name, unit["seconds"]["median"], _quartiles(unit["seconds"])]]
    if "stages" in result:
        counted = _both(result["stages"]["sum"]["flops"])
        units = result["time"]["units"]["median"]
        rows += [
            ["counted TFLOP", counted / 1e12, ""],
            ["floor, units", counted / unit["flops"], ""],
            ["TFLOP/s", counted / seconds / 1e12, ""],
            ["fraction of the product's rate", counted / unit["flops"] / units, ""],
        ]
    return rows


def _memory_rows(memory: Mapping[str, Any]) -> list[list[Any]]:
    names = {"before": "before", "peak": "peak", "reserved": "peak reserved"}
    return [
        [f"{memory['kind']} memory, {name}, GiB", memory[key] / GIB, ""]
        for key, name in names.items()
        if key in memory
    ]


def _quartiles(values: Mapping[str, float]) -> str:
    return f"{values['lower']:.4g} to {values['upper']:.4g}"


def _stages(result: Result) -> str:
    """Tabulate seconds and operations by stage; the rows sum to one whole run with hooks."""
    second, side = result["stages"]["unit"], result["unit"]["flops"]
    found = result["stages"]["rows"]
    found = sorted(found, key=lambda row: row["stage"] == OTHER)  # "other" last, the rest in order
    whole = _both(result["stages"]["sum"]["seconds"])
    rows = []
    for row in [*found, result["stages"]["sum"]]:
        seconds, counted = row["seconds"], row["flops"]
        units, floor = _both(seconds) / second, _both(counted) / side
        cells = [row["stage"], seconds.get(FORWARD), seconds.get(BACKWARD), units]
        cells += [100 * _both(seconds) / whole]
        cells += [counted.get(FORWARD, 0) / 1e9, counted.get(BACKWARD, 0) / 1e9]
        rows.append([*cells, floor, units / floor if floor > LEAST_FLOOR else None])
    header = ["stage", "forward s", "backward s", "units", "%", "forward GFLOP", "backward GFLOP"]
    header += ["floor, units", "times floor"]
    formats = ("", ".3f", ".3f", ".2f", ".1f", ".1f", ".1f", ".2f", ".1f")
    return tabulate(rows, header, FORMAT, floatfmt=formats, missingval="")


def _both(parts: Mapping[str, float]) -> float:
    return sum(parts.get(phase, 0) for phase in COUNTED)


def comparison(before: Result, after: Result) -> str:
    """Tabulate time, units, memory and stages of two results side by side."""
    found = [_figures(result) for result in (before, after)]
    rows = []
    for name in dict.fromkeys([*found[0], *found[1]]):
        old, new = (figures.get(name) for figures in found)
        rows.append([name, old, new, new / old if old and new is not None else None])
    return tabulate(rows, ["", "before", "after", "ratio"], FORMAT, floatfmt=".3f", missingval="")


def _figures(result: Result) -> dict[str, float]:
    if not {"time", "memory"} <= result.keys():
        raise UserError("--compare needs two results of the same mode, not sweeps")
    time = {key: value["median"] for key, value in result["time"].items() if key != "phases"}
    figures = time | {"peak memory, GiB": result["memory"]["peak"] / GIB}
    stages = result.get("stages", {"rows": ()})
    for row in stages["rows"]:
        figures[f"{row['stage']}, units"] = _both(row["seconds"]) / stages["unit"]
    return figures
