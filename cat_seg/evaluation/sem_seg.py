"""Semantic segmentation metrics over a dataset."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import SemSegEvaluator as _SemSegEvaluator

from cat_seg.data import check_label_values, read_label
from cat_seg.errors import UserError
from cat_seg.files import replacing

logger = logging.getLogger(__name__)

# detectron2 logs the metrics of all classes in one line, which here are in the results file, and
# warns that it computes no boundary IoU for many classes.
logging.getLogger(_SemSegEvaluator.__module__).setLevel(logging.ERROR)


class SemSegEvaluator(_SemSegEvaluator):
    """detectron2's evaluator, which sums one confusion matrix over all images and ranks.

    Left out is what takes longer than the metrics: encoding every prediction as RLE and the
    boundary IoU. Labels may have 16 bits. Where the metadata has `background_from`, predictions
    from that index on are all background, the class of that index.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """Evaluate a registered dataset.

        Args:
            dataset_name: its metadata has stuff_classes and ignore_label.
            output_dir: rank 0 writes inference/<dataset_name>/results.json below it.
        """
        super().__init__(dataset_name, sem_seg_loading_fn=read_label)
        self._compute_boundary_iou = False
        self._background = MetadataCatalog.get(dataset_name).get("background_from")
        if self._background is not None:
            self._class_names = [*self._class_names[: self._background], "background"]
            self._num_classes = len(self._class_names)
        self._results_file = (
            None
            if output_dir is None
            else Path(output_dir) / "inference" / dataset_name / "results.json"
        )

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Count the pixels of some images.

        Args:
            inputs: with the file_name of each image.
            outputs: with sem_seg, the scores (T, H, W) of each; H and W as the label's.

        Raises:
            UserError: a label that is unreadable, has a wrong value, or another size.
        """
        for item, output in zip(inputs, outputs, strict=True):
            predicted = output["sem_seg"].argmax(dim=0).cpu().numpy()
            if self._background is not None:
                predicted = np.minimum(predicted, self._background)
            label = self._label(item["file_name"], predicted.shape)
            side = self._num_classes + 1
            self._conf_matrix += np.bincount(
                (side * predicted + label).ravel(), minlength=side * side
            ).reshape(side, side)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return and write the metrics, in percent: mIoU, fwIoU, mACC, pACC, IoU-<class>, ...

        Classes that no label has count nowhere; their own entries are NaN (null in the file).

        Returns:
            {"sem_seg": {metric: value}} on rank 0, None on the others.
        """
        results = super().evaluate()
        if results is not None and self._results_file is not None:
            finite = {
                name: None if math.isnan(value) else float(value)
                for name, value in results["sem_seg"].items()
            }
            self._results_file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._results_file, "w") as file:
                json.dump({"dataset": self._dataset_name, "sem_seg": finite}, file, indent=1)
            logger.info("The metrics of each class are in %s", self._results_file)
        return results

    def _label(self, image_file: str, shape: tuple[int, int]) -> np.ndarray:
        path = self.input_file_to_gt_file[image_file]
        label = self.sem_seg_loading_fn(path)
        check_label_values(label, path, self._num_classes, self._ignore_label)
        if label.shape != shape:
            raise UserError(
                f"label {path} is {label.shape[1]}x{label.shape[0]} pixels, "
                f"its image {image_file} is {shape[1]}x{shape[0]}; make them equal"
            )
        label[label == self._ignore_label] = self._num_classes
        return label
