"""The model card (README.md) of a shared model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from detectron2.config import CfgNode
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cat_seg.data import LABELS
from cat_seg.errors import UserError
from cat_seg.evaluation.record import incompleteness
from cat_seg.hub.portable import CLIP_CONFIG
from cat_seg.modeling.clip.architecture import Architecture

LIBRARY = "hps-seg"
_TASK = "image-segmentation"
_METRICS = {"mIoU": "mean_iou", "mACC": "mean_accuracy", "pACC": "pixel_accuracy"}

_TEXT = """\
---
{data}
---

# {name}

An open-vocabulary semantic segmentation model of [HPS-Seg](https://github.com/ZhaoYi-10-13/HPS-Seg):
it segments images into classes that are named at test time.

```python
import cat_seg

model = cat_seg.from_pretrained("{source}")
```

| | |
|---|---|
| architecture | {architecture} |
| CLIP | {clip}, `CLIP_FINETUNE: {tuning}` |
| trained on | {datasets} |
| training classes | {classes}, in `vocabulary.json` |
| license | {license} |

{weights}

## Results

{results}
"""


def read_results(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Read results.json files and keep those of whole datasets, one of each dataset.

    Args:
        files: an earlier file takes precedence for its dataset.

    Raises:
        UserError: a file cannot be read or holds no results.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        content = results_of(file)
        try:
            if incompleteness(content) is None and content["sem_seg"]["mIoU"] is not None:
                found.setdefault(content["dataset"], content)
        except (LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{file} holds no results of an evaluation ({error!r})") from error
    return list(found.values())


def results_of(file: Path) -> dict[str, Any]:
    """Read one results.json.

    Raises:
        UserError: it cannot be read.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({error}); remove it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no results of an evaluation; remove it")
    return content


def model_card(
    cfg: CfgNode,
    *,
    name: str,
    classes: int,
    with_clip: bool,
    results: Sequence[Mapping[str, Any]] = (),
    license: str | None = None,
    source: str | None = None,
) -> str:
    """Write a model card with the metadata that the Hub reads.

    Args:
        cfg: the config of the training.
        name: the model's name.
        classes: number of training classes.
        with_clip: whether the weights include CLIP's own.
        results: contents of results.json files.
        license: identifier of the license, such as "mit"; None if none is stated.
        source: what `from_pretrained` takes; None for the folder's name.

    Returns:
        The content of README.md.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    base = _base_model(head.CLIP_PRETRAINED, head.CLIP_WEIGHTS)
    datasets = list(cfg.DATASETS.TRAIN)
    data = ModelCardData(
        base_model=base,
        datasets=datasets or None,
        eval_results=[one for content in results for one in _eval_results(content)] or None,
        library_name=LIBRARY,
        license=license,
        model_name=name,
        pipeline_tag=_TASK,
        tags=["semantic-segmentation", "open-vocabulary", "clip", "detectron2"],
    )
    weights = (
        "`model.safetensors` holds all weights, each once."
        if with_clip
        else "`model.safetensors` holds what was trained. CLIP's own weights were frozen; they are"
        " loaded from the CLIP named above."
    )
    text = _TEXT.format(
        data=data.to_yaml(),
        name=name,
        source=source or name,
        architecture=cfg.MODEL.META_ARCHITECTURE,
        clip=f"`{CLIP_CONFIG if head.CLIP_PRETRAINED.endswith('.json') else head.CLIP_PRETRAINED}`"
        + (f" ([{base}](https://huggingface.co/{base}))" if base else ""),
        tuning=head.CLIP_FINETUNE,
        datasets=", ".join(f"`{dataset}`" for dataset in datasets) or "not stated",
        classes=classes,
        license=license or "not stated",
        weights=weights,
        results=_table(results) if results else "None are recorded with these weights.",
    )
    return ModelCard(text).content


def _base_model(clip: str, weights: str) -> str | None:
    """Return the repository that the initial weights were downloaded from, None for a file."""
    config = open_clip.get_pretrained_cfg(Architecture.from_name(clip).open_clip_name, weights)
    return (config or {}).get("hf_hub", "").rstrip("/") or None


def _eval_results(content: Mapping[str, Any]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=content["dataset"],
            dataset_name=_label(content["dataset"]),
            metric_type=kind,
            metric_name=metric,
            metric_value=round(content["sem_seg"][metric], 4),
        )
        for metric, kind in _METRICS.items()
        if content["sem_seg"].get(metric) is not None
    ]


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"| {_label(content['dataset'])} | {content['sem_seg']['mIoU']:.2f} |"
        for content in results
    ]
    return "\n".join(["| dataset | mIoU (%) |", "|---|--:|", *rows])


def _label(dataset: str) -> str:
    return LABELS.get(dataset, dataset)
