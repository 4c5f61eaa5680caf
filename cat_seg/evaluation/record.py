"""The description of an evaluation in results.json, and when its results can be reused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from cat_seg import __version__
from cat_seg.checkpoint.reading import local_file
from cat_seg.configuration.precision import precision
from cat_seg.data import LABELS
from cat_seg.evaluation.vocabulary import vocabulary_of
from cat_seg.utils.files import sha256_of
from cat_seg.utils.machine import device_name, versions
from cat_seg.utils.paths import REPO_ROOT

Json = dict[str, Any]

# Config sections that determine the metrics -> their keys that do not, apart from rounding.
DECISIVE = {
    # The weights are compared by hash instead of by path.
    "MODEL": {"WEIGHTS", "DEVICE", "COMPILE", "ACTIVATION_CHECKPOINTING", "DETERMINISTIC"},
    "INPUT": set(),
    "TEST": {
        *("IMS_PER_BATCH", "EVAL_PERIOD", "EXPECTED_RESULTS", "SAVE_PREDICTIONS"),
        "ALLOW_UNTRAINED",
    },
}


def results_file(output_dir: str, dataset_name: str) -> Path:
    """Return the path of a dataset's results below a run's OUTPUT_DIR."""
    return Path(output_dir) / "inference" / dataset_name / "results.json"


def weights_record(weights: str) -> dict[str, str] | None:
    """Return the path and SHA-256 of the MODEL.WEIGHTS file, or None if MODEL.WEIGHTS is "".

    Raises:
        UserError: the file does not exist or cannot be fetched.
    """
    if not weights:
        return None
    return {"file": weights, "sha256": sha256_of(local_file(weights))}


@cache
def source_commit() -> str | None:
    """Return this code's git commit, with "-dirty" if files are modified; None without git."""
    command = ["git", "-C", str(REPO_ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    # Ignore an enclosing repository that this code only happens to lie in.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(REPO_ROOT.parent)}
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, env=environment, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def names_below_common_folder(files: Sequence[str]) -> list[str]:
    """Return paths relative to the deepest folder that holds all of them, with "/" in between.

    The names of a dataset's images are thus the same wherever it lies.
    """
    folder = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    return [os.path.relpath(file, folder or os.curdir).replace(os.sep, "/") for file in files]


def hash_of_names(names: Iterable[str]) -> str:
    """Return the SHA-256 of a list of names, in their order."""
    return hashlib.sha256(json.dumps([*names]).encode()).hexdigest()


def data_record(images: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Describe the data of an evaluation, to be compared with that of another one.

    Args:
        images: paths of all images of the dataset.
        classes: the dataset's class names.

    Returns:
        images_sha256, of `names_below_common_folder`, and classes_sha256.
    """
    return {
        "images_sha256": hash_of_names(names_below_common_folder(images)),
        "classes_sha256": hash_of_names(classes),
    }


def environment_record(cfg: CfgNode) -> Json:
    """Describe what an evaluation runs with: versions, device, precision, number of processes."""
    device = torch.device(cfg.MODEL.DEVICE)
    return {
        "version": __version__,
        **versions(),
        "CUDA": torch.version.cuda if device.type == "cuda" else None,
        "device": device_name(cfg.MODEL.DEVICE),
        "tf32": device.type == "cuda" and torch.get_float32_matmul_precision() != "highest",
        "precision": precision(cfg),
        "processes": comm.get_world_size(),
    }


def run_record(cfg: CfgNode, dataset_name: str, weights: Mapping[str, Any] | None) -> Json:
    """Describe an evaluation before it runs.

    Args:
        cfg: the full config.
        dataset_name: a registered dataset.
        weights: from `weights_record`; {"untrained": True} for a model without weights; None for a
            model that is not in a file, as during training.

    Returns:
        benchmark (its heading in tables, None for other datasets), dataset, vocabulary (the class
        names), backbone, config, weights, commit and environment (from `environment_record`).

    Raises:
        UserError: TEST_CLASS_JSON does not match the dataset.
    """
    return {
        "benchmark": LABELS.get(dataset_name),
        "dataset": dataset_name,
        "vocabulary": vocabulary_of(cfg, dataset_name),
        "backbone": cfg.MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED,
        "config": json.loads(json.dumps(cfg)),  # lists instead of tuples, as when read back
        "weights": weights,
        "commit": source_commit(),
        "environment": environment_record(cfg),
    }


def incompleteness(results: Json) -> str | None:
    """Return how a results file falls short of the full dataset, or None if it is complete.

    Args:
        results: content of results.json; files of earlier versions lack this information.

    Returns:
        Text such as "3 of 2000 images" or "1998 of 2000 images, 2 skipped".
    """
    counts = results.get("counts") or {}
    images, skipped = counts.get("images", 0), counts.get("skipped", 0)
    total = max(counts.get("expected") or 0, images + skipped)
    if images == total:
        return None
    return f"{images} of {total} images" + (f", {skipped} skipped" if skipped else "")


def finished_results(file: Path, record: Json, images: Sequence[str]) -> Json | None:
    """Return the content of a results file if it can replace the given evaluation, else None.

    Weights (by hash), vocabulary, the list of images and every decisive part of the config must be
    the same. If predictions are requested, they must have been saved. Commit, versions, device and
    number of processes are information. Files of earlier versions have only the number of images.

    Args:
        file: results.json; may be missing or damaged.
        record: the evaluation, from `run_record`.
        images: paths of all images of the dataset.
    """
    data = data_record(images, record["vocabulary"])
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        same = (
            record["weights"] is not None
            and found["weights"]["sha256"] == record["weights"]["sha256"]
            and found["vocabulary"] == record["vocabulary"]
            and found["counts"]["images"] == len(images)
            and found.get("data", data) == data
            and _decisive(found) == _decisive(record)
            and _predictions_wanted(found) >= _predictions_wanted(record)
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return found if same else None


def _predictions_wanted(record: Json) -> bool:
    return record["config"]["TEST"]["SAVE_PREDICTIONS"]


def _decisive(record: Json) -> Json:
    config = record["config"]
    parts = {
        name: {key: value for key, value in config[name].items() if key not in without}
        for name, without in DECISIVE.items()
    }
    return parts | {
        "CUSTOM": config["DATASETS"]["CUSTOM"].get(record["dataset"]),
        "precision": precision(config),  # TEST.AMP.DTYPE "auto" depends on MODEL.DEVICE
    }
