"""Reading runs and their results from the files written by training and evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cat_seg.data import LABELS
from cat_seg.errors import UserError
from cat_seg.evaluation import incompleteness
from cat_seg.evaluation.results.methods import Method, backbone_of, method_of
from cat_seg.utils.paths import resolve

# Where a run has results. Later places win: "eval" follows the full protocol.
PLACES = ("inference", "eval/inference")
FILE = "results.json"
CONFIGS = ("config.yaml", "eval/config.yaml")

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """The results of a run on one benchmark.

    metrics: percent by name; None if no pixel counted.
    config: the config that was evaluated. None if the file does not say, like the next two.
    weights: SHA-256 of the weights.
    commit: git commit of the code.
    incomplete: the images covered, such as "3 of 2000 images"; None for the full dataset.
    """

    file: Path
    metrics: Mapping[str, float | None]
    config: Config | None
    weights: str | None
    commit: str | None
    incomplete: str | None = None


@dataclass(frozen=True)
class Run:
    """An output folder of training or evaluation; `results` maps benchmark labels to results."""

    folder: Path
    method: Method
    backbone: str
    results: Mapping[str, Result]


def read_runs(folders: Iterable[str]) -> list[Run]:
    """Read each run once. A folder that is not a run itself stands for the runs in it.

    Raises:
        UserError: a folder is missing or contains no run, or a file cannot be read.
    """
    found = [run for folder in folders for run in _runs_in(resolve(folder))]
    return [_read_run(folder) for folder in dict.fromkeys(path.resolve() for path in found)]


def _runs_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the output folders of runs")
    found = [path for path in (folder, *sorted(folder.iterdir())) if _is_run(path)]
    if not found:
        raise UserError(
            f"{folder} contains no run: neither it nor its subfolders have a config.yaml or results"
        )
    return found[:1] if found[0] == folder else found


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (*CONFIGS, *PLACES))


def _read_run(folder: Path) -> Run:
    results = {}
    for place in PLACES:
        for file in sorted((folder / place).glob(f"*/{FILE}")):
            label, result = _read_result(file)
            if label is not None:
                results[label] = result
    source, config = _config_of(folder, results)
    try:
        return Run(folder, method_of(config), backbone_of(config), results)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source} does not contain a complete config of this project") from error


def results_files(place: str) -> list[Path]:
    """Return the results files of a run, of the folder of an evaluation, or the file itself.

    Raises:
        UserError: there is none.
    """
    path = resolve(place)
    if path.is_file():
        return [path]
    if (path / FILE).is_file():
        return [path / FILE]
    found: dict[str, Path] = {}
    for folder in (path, *(path / name for name in PLACES)):
        found |= {file.parent.name: file for file in sorted(folder.glob(f"*/{FILE}"))}
    if not found:
        raise UserError(
            f"{place} has no results; give a {FILE}, its folder, or the output folder of a run"
        )
    return [*found.values()]


def read_content(file: Path) -> dict[str, Any]:
    """Return the content of a results.json of any version.

    Raises:
        UserError: it cannot be read, or is not a results file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        for value in content["sem_seg"].values():
            if value is not None:
                float(value)
        (content.get("weights") or {}).get("sha256")
        incompleteness(content)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} is not a results file; evaluate that benchmark again") from error
    return content


def label_of(content: Mapping[str, Any]) -> str | None:
    """Return the heading of the benchmark of a results file, or None for other datasets."""
    return content.get("benchmark") or LABELS.get(content.get("dataset", ""))


def _read_result(file: Path) -> tuple[str | None, Result]:
    content = read_content(file)
    metrics = {
        name: None if value is None else float(value) for name, value in content["sem_seg"].items()
    }
    weights = (content.get("weights") or {}).get("sha256")
    short = incompleteness(content)
    return label_of(content), Result(
        file, metrics, content.get("config"), weights, content.get("commit"), short
    )


def _config_of(folder: Path, results: Mapping[str, Result]) -> tuple[Path, Config]:
    """Return the file with a run's config, and the config; results take precedence over CONFIGS."""
    for result in results.values():
        if result.config is not None:
            return result.file, result.config
    for name in CONFIGS:
        file = folder / name
        try:
            return file, yaml.safe_load(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"cannot read the config {file}: {reason}") from error
    raise UserError(f"cannot tell the method of {folder}: it has no config.yaml")
