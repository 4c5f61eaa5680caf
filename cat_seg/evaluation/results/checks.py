"""Warnings about results that may not be comparable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cat_seg.configuration.loading import leaves
from cat_seg.evaluation.protocol import PROTOCOL
from cat_seg.evaluation.results.columns import View
from cat_seg.evaluation.results.read import Run
from cat_seg.evaluation.results.table import group

# Config sections in which the runs of one method must agree, and the keys in them that may differ.
SECTIONS = ("MODEL.", "INPUT.", "SOLVER.", "DATASETS.TRAIN", "TEST.AUG.")
# The protocol, and what an evaluation by it leaves off.
PUBLISHED = PROTOCOL | {"TEST.AMP.ENABLED": False, "TEST.MOST_CLASSES": 0}
FREE = ("MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.COMPILE", "SOLVER.CHECKPOINT_PERIOD")


def doubts(runs: Sequence[Run]) -> Iterator[str]:
    """Yield one line for each reason why the table's results may not be comparable."""
    for run in runs:
        yield from _mixed(run)
        yield from _off_protocol(run)
        yield from _incomplete(run)
    yield from _counted_twice(runs)
    for (backbone, method), members in group(runs).items():
        for key, values in _differences(members).items():
            yield f"runs of {method} with {backbone} have different {key}: {' and '.join(values)}"


def gaps(runs: Sequence[Run], view: View) -> Iterator[str]:
    """Yield a line for each run that lacks some of the results that the means in a table need."""
    means = [column for column in view.columns if len(column.sources) > 1]
    needed = dict.fromkeys(label for column in means for label in column.labels)
    for run in runs:
        missing = [label for label in needed if label not in run.results]
        if missing:
            yield (
                f"{run.folder} has no results for {len(missing)} of {len(needed)} datasets, and no "
                f"mean that they count in: {', '.join(missing)}"
            )


def _mixed(run: Run) -> Iterator[str]:
    """Warn about one folder with results from different weights or different commits."""
    for name in ("weights", "commit"):
        labels: dict[str, list[str]] = {}
        for label, result in run.results.items():
            value = getattr(result, name)
            if value is not None:
                labels.setdefault(value, []).append(label)
        if len(labels) > 1:
            parts = [f"{', '.join(found)} from {value[:12]}" for value, found in labels.items()]
            what = "weights" if name == "weights" else "commits"
            yield f"{run.folder} mixes results from different {what}: {'; '.join(parts)}"


def _off_protocol(run: Run) -> Iterator[str]:
    for label, result in run.results.items():
        config = dict(leaves(result.config or {}))
        for key, value in PUBLISHED.items():
            if config.get(key, value) != value:
                yield (
                    f"{run.folder} has {label} evaluated with {key} {config[key]}, but the "
                    f"published protocol uses {value}"
                )


def _incomplete(run: Run) -> Iterator[str]:
    for label, result in run.results.items():
        if result.incomplete:
            yield f"{run.folder} has {label} evaluated on only {result.incomplete}"


def _counted_twice(runs: Sequence[Run]) -> Iterator[str]:
    owner: dict[str, Run] = {}
    for run in runs:
        found = {result.weights for result in run.results.values() if result.weights is not None}
        for weights in found:
            if weights in owner:
                yield (
                    f"{owner[weights].folder} and {run.folder} have results of the same weights, "
                    "which count as two runs"
                )
            else:
                owner[weights] = run


def _differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the different values of each relevant key that all runs have and do not agree on."""
    configs = [
        dict(leaves(result.config))
        for run in runs
        for result in list(run.results.values())[:1]
        if result.config is not None
    ]
    found = {}
    for key in set[str]().union(*configs):
        if key.startswith(SECTIONS) and key not in FREE and all(key in c for c in configs):
            values = list(dict.fromkeys(str(config[key]) for config in configs))
            if len(values) > 1:
                found[key] = values
    return dict(sorted(found.items()))
