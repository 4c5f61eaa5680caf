"""Run folders as training and evaluation leave them, with results of our choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cat_seg.data import LABELS
from cat_seg.engine import load_config
from cat_seg.evaluation.protocol import protocol_overrides

DATASETS = {label: dataset for dataset, label in LABELS.items()}


def write_run(
    folder: Path,
    config: str = "vitb_384_oft",
    results: Mapping[str, float] | None = None,
    overrides: tuple[str, ...] = (),
    **more: Any,
) -> Path:
    """Write a run folder with config.yaml and eval/inference/<dataset>/results.json.

    Args:
        config: name of a shipped config.
        results: mIoU by the benchmark's label.
        overrides: KEY, VALUE, ... of the training and of the evaluation.
        more: entries of every results.json.
    """
    file = f"configs/{config}.yaml"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load_config(file, overrides).dump())
    for label, value in (results or {}).items():
        write_result(folder / "eval", label, value, file, overrides, **more)
    return folder


def write_result(
    place: Path,
    label: str,
    value: float | None,
    config: str = "configs/vitb_384_oft.yaml",
    overrides: tuple[str, ...] = (),
    **more: Any,
) -> Path:
    """Write PLACE/inference/<dataset>/results.json; returns it."""
    content = {
        "benchmark": label,
        "dataset": DATASETS[label],
        "sem_seg": {"mIoU": value, "pACC": 50.0, "IoU-cat": None},
        "config": _evaluated(config, overrides),
        "weights": {"file": "model_final.pth", "sha256": str(place)},
        "commit": "0123abc",
    }
    file = place / "inference" / DATASETS[label] / "results.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | more))
    return file


@cache
def _evaluated(config: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return yaml.safe_load(load_config(config, [*protocol_overrides(), *overrides]).dump())
