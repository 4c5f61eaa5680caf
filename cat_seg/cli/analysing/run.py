"""Reading the output folder of a finished training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import Tensor

from cat_seg.cat_seg_model import CATSeg
from cat_seg.checkpoint import Checkpointer
from cat_seg.data import load_vocabulary, read_image
from cat_seg.data.class_names import first_synonym
from cat_seg.engine import load_config
from cat_seg.engine.model import build_model
from cat_seg.engine.precision import set_float32_precision
from cat_seg.engine.setup import check_device
from cat_seg.engine.trainer import FINAL, METRICS
from cat_seg.errors import UserError
from cat_seg.evaluation.results.read import PLACES
from cat_seg.inference.loading import default_device
from cat_seg.predictor import KINDS
from cat_seg.utils.metrics_file import read_metrics
from cat_seg.utils.paths import resolve


@dataclass(frozen=True)
class Result:
    """The results of a run on a dataset.

    Attributes:
        file: results.json.
        miou: mIoU in percent, None if no pixel is labeled.
        iou: IoU in percent of each class that is labeled.
    """

    file: Path
    miou: float | None
    iou: Mapping[str, float]


@dataclass
class Run:
    """A finished training.

    Attributes:
        folder: its output folder.
        cfg: its config, with MODEL.WEIGHTS and MODEL.DEVICE set.
        metrics: of metrics.json, by iteration; empty without that file.
        results: by dataset.
        image_files: images to look at; empty for the first ones of the run's test set.
        count: number of those.
    """

    folder: Path
    cfg: CfgNode
    metrics: Mapping[int, Mapping[str, float]]
    results: Mapping[str, Result]
    image_files: Sequence[str] = ()
    count: int = 1

    @cached_property
    def model(self) -> CATSeg:
        """The trained model, in evaluation mode.

        Raises:
            UserError: the checkpoint does not fit the config, or cannot be read.
        """
        set_float32_precision(self.cfg)
        model = build_model(self.cfg).eval()
        Checkpointer(model, averaged=self.cfg.MODEL.WEIGHTS_EMA).load(self.cfg.MODEL.WEIGHTS)
        return model

    @cached_property
    def train_classes(self) -> list[str]:
        """Class names of training."""
        return load_vocabulary(self.cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON)

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """The images, (3, H, W) in 0..255, by file name.

        Raises:
            UserError: an image or the test set cannot be read.
        """
        files = list(self.image_files)
        if not files:
            if not self.cfg.DATASETS.TEST:
                raise UserError("DATASETS.TEST is empty; give images with --images")
            records = DatasetCatalog.get(self.cfg.DATASETS.TEST[0])
            files = [record["file_name"] for record in records[: self.count]]
        ignore = self.cfg.INPUT.IGNORE_EXIF_ORIENTATION
        pictures = {file: read_image(str(resolve(file)), "RGB", ignore) for file in files}
        return {
            Path(file).name: torch.tensor(picture).permute(2, 0, 1)
            for file, picture in pictures.items()
        }

    def seen(self, names: Sequence[str]) -> set[str]:
        """Return those of `names` whose first synonym was trained on."""
        trained = {first_synonym(name) for name in self.train_classes}
        return {name for name in names if first_synonym(name) in trained}


def read_run(
    folder: str,
    *,
    device: str | None = None,
    images: Sequence[str] = (),
    count: int = 1,
    opts: Sequence[str] = (),
) -> Run:
    """Read the files of a run, but not yet its model and images.

    Args:
        folder: output folder of a training.
        device: MODEL.DEVICE; None for the first of cuda, mps and cpu that is there.
        images, count: see `Run`.
        opts: further KEY VALUE pairs for the config.

    Raises:
        UserError: the folder is no run, the run is not finished, or a file cannot be read.
    """
    place = resolve(folder)
    if not place.is_dir():
        raise UserError(f"{folder} is not a folder; give the output folder of a training")
    config, weights = place / "config.yaml", place / f"{FINAL}.pth"
    if not config.is_file():
        raise UserError(f"{folder} is not the output folder of a training: it has no config.yaml")
    if not weights.is_file():
        raise UserError(
            f"{folder} has no {weights.name}, so its training is not finished; continue it with "
            "train_net.py --resume"
        )
    fixed = ["MODEL.WEIGHTS", str(weights), "MODEL.DEVICE", device or default_device()]
    cfg = load_config(str(config), [*fixed, *opts])
    check_device(cfg, kinds=KINDS)
    metrics = place / METRICS
    return Run(
        place,
        cfg,
        read_metrics(metrics) if metrics.is_file() else {},
        dict(_results(place)),
        images,
        count,
    )


def _results(folder: Path) -> Iterator[tuple[str, Result]]:
    """Yield the results of a run by dataset; later ones replace earlier ones."""
    for place in PLACES:
        for file in sorted((folder / place).glob("*/results.json")):
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                metrics = cast(dict[str, Any], content["sem_seg"])
                iou = {
                    name: float(metrics[f"IoU-{name}"])
                    for name in content["vocabulary"]
                    if metrics.get(f"IoU-{name}") is not None
                }
                yield content["dataset"], Result(file, metrics["mIoU"], iou)
            except OSError as error:
                raise UserError(f"cannot read {file}: {error.strerror}") from error
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise UserError(f"{file} is not a results file; evaluate again") from error
