"""The ablation's table and its data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tabulate import tabulate

from cat_seg.evaluation.results.formats import signed
from cat_seg.utils.files import atomic_write
from tools.ablation.pipeline import Scores
from tools.ablation.statistics import compare


def write_report(path: Path, scores: Sequence[Scores], seeds: Sequence[int]) -> str:
    """Write a Markdown file, and the numbers beside it as JSON; return the text.

    Args:
        path: the Markdown file to write.
        scores: the methods; the first one is the baseline.
        seeds: the seeds, in the order of the scores' values.
    """
    count = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    text = (
        "\n\n".join(_table(scores, measure) for measure in scores[0].values)
        + f"\n\nmIoU in percent over {count}: mean and standard deviation; mean difference from "
        f"{scores[0].title} with the same data and CLIP, in points, and its 95 % confidence "
        "interval (Student's t); number of seeds in which the method is better or worse, and the "
        "p value of the sign test.\n"
    )
    content = {"seeds": [*seeds], "methods": [_entry(each, scores[0]) for each in scores]}
    with atomic_write(path, "w") as file:
        file.write(text)
    with atomic_write(path.with_suffix(".json"), "w") as file:
        json.dump(content, file, indent=2)
    return text


def _entry(scores: Scores, baseline: Scores) -> dict[str, Any]:
    entry: dict[str, Any] = {"title": scores.title, "mIoU": dict(scores.values)}
    if scores is not baseline:
        entry["difference"] = {
            measure: asdict(compare(values, baseline.values[measure]))
            for measure, values in scores.values.items()
        }
    return entry


def _table(scores: Sequence[Scores], measure: str) -> str:
    baseline = scores[0].values[measure]
    rows = [_row(each.title, each.values[measure], baseline) for each in scores]
    headers = [measure, "mIoU", "difference", "95 % interval", "better / worse", "p"]
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, "github", disable_numparse=True, colalign=align)


def _row(title: str, values: tuple[float, ...], baseline: tuple[float, ...]) -> list[str]:
    mean = f"{100 * fmean(values):.1f}"
    if len(values) > 1:
        mean += f" ± {100 * stdev(values):.1f}"
    if values is baseline:
        return [title, mean, "", "", "", ""]
    found = compare(values, baseline)
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"{signed(100 * found.low)} to {signed(100 * found.high)}"
    return [
        title,
        mean,
        signed(100 * found.mean),
        interval,
        f"{found.better} / {found.worse}",
        f"{found.p:.2f}",
    ]
