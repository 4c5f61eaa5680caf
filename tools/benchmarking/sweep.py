"""Measure one mode at several values, each in its own process, and plot time and memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.utils.progress import bar
from tools.benchmarking import report
from tools.benchmarking.options import SWEEPS, Options, arguments

TOOL = REPO_ROOT / "tools" / "benchmark.py"
# Name of the swept quantity's unit, and how many of them a result has.
PER = {
    "classes": ("aggregated class", lambda work: work["aggregated"]),
    "batch": ("image", lambda work: work["batch"]),
    "size": ("megapixel", lambda work: work["image_size"][0] * work["image_size"][1] / 1e6),
}
AXES = {"classes": "classes", "batch": "images per batch", "size": "side of the image, pixels"}
COLOR = "#0072b2"

Points = Mapping[str, Mapping[str, Any]]


def run_sweep(options: Options) -> None:
    """Measure every point missing from --output, writing it after each, then draw the plot.

    Raises:
        UserError: --output belongs to another sweep, or a point failed (earlier ones are kept).
    """
    wanted = sorted(options.points or SWEEPS[options.sweep])
    content = {
        "sweep": options.sweep,
        "command": [*arguments(options), *options.opts],
        "points": {},
    }
    if options.output.exists():
        found = report.read(options.output)
        if any(found.get(key) != content[key] for key in ("sweep", "command")):
            raise UserError(f"--output {options.output} belongs to another sweep; use another name")
        content = found
    missing = [value for value in wanted if str(value) not in content["points"]]
    for value in bar(iterable=missing, desc=f"--sweep {options.sweep}", unit="point"):
        content["points"][str(value)] = measure_point(options, value)
        content["points"] = dict(sorted(content["points"].items(), key=lambda item: int(item[0])))
        report.write(content, options.output)
    picture = options.output.with_suffix(".png")
    with atomic_write(picture) as file:
        draw(options.sweep, content["points"], title(content["points"])).savefig(file, format="png")
    print(table(options.sweep, content["points"]))
    print(f"\nwrote the plot to {picture} and the numbers to {options.output}")


def measure_point(options: Options, value: int) -> dict[str, Any]:
    """Measure one value in its own process, so that its peak memory is not affected by others."""
    flag = {"classes": "--classes", "batch": "--batch", "size": "--image-size"}[options.sweep]
    with TemporaryDirectory() as folder:
        output = Path(folder) / "point.json"
        own = [flag, str(value), "--no-stages", "--output", str(output)]
        command = [sys.executable, str(TOOL), *arguments(options), *own, *options.opts]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UserError(f"{flag} {value} failed: {last}; earlier points are kept")
        return report.read(output)


def curves(kind: str, points: Points) -> list[dict[str, float]]:
    """Return units and GiB of every point, in total and per swept quantity.

    "GiB" is the memory that the steps took on top of the model; "peak GiB" is the total.
    """
    rows = []
    for value, result in points.items():
        number = PER[kind][1](result["work"])
        memory = result["memory"]
        units = result["time"]["units"]["median"]
        gib = (memory["peak"] - memory["before"]) / report.GIB
        row = {"value": int(value), "units": units, "units each": units / number, "GiB": gib}
        rows.append(row | {"GiB each": gib / number, "peak GiB": memory["peak"] / report.GIB})
    return rows


def table(kind: str, points: Points) -> str:
    """Format the curves as a table."""
    each = PER[kind][0]
    names = {"units each": f"units per {each}", "GiB each": f"GiB per {each}", "value": AXES[kind]}
    rows = [{names.get(key, key): v for key, v in row.items()} for row in curves(kind, points)]
    return tabulate(rows, "keys", "github", floatfmt=".4g")


def draw(kind: str, points: Points, title: str) -> Figure:
    """Plot time (top) and memory (bottom), in total (left) and per swept quantity (right)."""
    rows = curves(kind, points)
    each = PER[kind][0]
    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(2, 2, sharex=True)
    for axes, key, name in (
        (panels[0, 0], "units", "time, units"),
        (panels[0, 1], "units each", f"units per {each}"),
        (panels[1, 0], "GiB", "memory of a step, GiB"),
        (panels[1, 1], "GiB each", f"GiB per {each}"),
    ):
        axes.plot([row["value"] for row in rows], [row[key] for row in rows], "o-", color=COLOR)
        axes.set_title(name, loc="left", fontsize="medium")
        axes.set_ylim(0, 1.08 * max(row[key] for row in rows))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1]:
        axes.set_xlabel(AXES[kind])
    return figure


def title(points: Points) -> str:
    """Describe what was measured, and on which machine."""
    result = next(iter(points.values()))
    options, unit = result["options"], result["unit"]
    machine = result["environment"]["gpu"] or result["environment"]["cpu"]
    return (
        f"{options['mode']}, {Path(options['config_file']).name}, {machine}\n"
        f"1 unit = one {unit['side']}x{unit['side']} product in {unit['dtype']}"
        f" ({unit['seconds']['median']:.3g} s here)"
    )
