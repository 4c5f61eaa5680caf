"""Reading the metrics.json that a training run writes."""

from __future__ import annotations

import json
from pathlib import Path

from cat_seg.errors import UserError


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Read the metrics of a run by iteration, in ascending order.

    A run that was killed and resumed may have written some iterations twice; later values win. An
    unfinished last line, from a job still running, is skipped.

    Raises:
        UserError: the file is missing or is not a metrics.json.
    """
    merged: dict[int, dict[str, float]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                metrics = json.loads(line)
                merged.setdefault(int(metrics["iteration"]), {}).update(metrics)
    except OSError as error:
        raise UserError(f"cannot read the metrics {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a metrics.json of a training run") from error
    return dict(sorted(merged.items()))
