"""Semantic segmentation metrics over a dataset."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import SemSegEvaluator as _SemSegEvaluator
from detectron2.utils import comm

from cat_seg.data.reading import check_label_size, check_label_values, read_label
from cat_seg.files import replacing

logger = logging.getLogger(__name__)

# detectron2 logs the metrics of all classes in one line, which here are in the results file, and
# warns that it computes no boundary IoU for many classes.
logging.getLogger(_SemSegEvaluator.__module__).setLevel(logging.ERROR)


class SemSegEvaluator(_SemSegEvaluator):
    """detectron2's evaluator, which sums one confusion matrix over all images and ranks.

    Left out is what takes longer than the metrics: the boundary IoU, and, unless asked for,
    encoding every prediction as RLE. Labels may have 16 bits. Where the metadata has
    `background_from`, predictions from that index on are all background, the class of that index.
    """

    def __init__(
        self,
        dataset_name: str,
        results_file: Path | None = None,
        *,
        record: Mapping[str, Any] | None = None,
        save_predictions: bool = False,
    ) -> None:
        """Evaluate a registered dataset.

        Args:
            dataset_name: its metadata has stuff_classes and ignore_label.
            results_file: where rank 0 writes the metrics.
            record: further entries of that file, such as those of `run_record`.
            save_predictions: write sem_seg_predictions.json beside it, COCO's stuff format: a list
                of {file_name, category_id, segmentation (RLE)} for each class in each prediction.
        """
        super().__init__(dataset_name, sem_seg_loading_fn=read_label)
        self._compute_boundary_iou = False
        self._background = MetadataCatalog.get(dataset_name).get("background_from")
        if self._background is not None:
            self._class_names = [*self._class_names[: self._background], "background"]
            self._num_classes = len(self._class_names)
        self._results_file = results_file
        self._record = dict(record or {})
        self._save_predictions = save_predictions and results_file is not None

    def reset(self) -> None:
        """Begin to count, and to measure the time."""
        super().reset()
        self._b_conf_matrix = np.zeros((0, 0), dtype=np.int64)  # ranks would send it to each other
        self._images = 0
        self._start = time.perf_counter()

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
            if self._save_predictions:
                self._predictions += self.encode_json_sem_seg(predicted, item["file_name"])
            self._images += 1

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return and write the metrics, in percent: mIoU, fwIoU, mACC, pACC, IoU-<class>, ...

        Ignored pixels count nowhere, whatever is predicted for them. IoU-<class> is of all other
        pixels, those of images without the class too. mIoU and mACC are means over the classes that
        at least one label has, as published evaluations have it: a class that is only predicted
        lowers the IoU of the classes it is taken for, and its own IoU (of 0) is not in the mean.
        Its entries, and those of a class that is nowhere, are NaN (null in the file). fwIoU weights
        each IoU by the class's share of the labelled pixels; pACC is the share of labelled pixels
        that are right.

        Returns:
            {"sem_seg": {metric: value}} on rank 0, None on the others.
        """
        images = sum(comm.all_gather(self._images))
        results = super().evaluate()
        if results is not None and self._results_file is not None:
            self._write(results["sem_seg"], images)
        return results

    def _write(self, metrics: Mapping[str, float], images: int) -> None:
        labelled = self._conf_matrix[:, :-1].sum(axis=0)  # pixels of each class
        content = {
            "dataset": self._dataset_name,
            "sem_seg": {
                name: None if math.isnan(value) else float(value) for name, value in metrics.items()
            },
            "counts": {
                "images": images,
                "labelled_pixels": int(labelled.sum()),
                "classes": self._num_classes,
                "classes_present": int((labelled > 0).sum()),
            },
            **self._record,
            "seconds": round(time.perf_counter() - self._start, 3),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        folder = self._results_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        if self._save_predictions:
            with replacing(folder / "sem_seg_predictions.json", "w") as file:
                json.dump(self._predictions, file)
        with replacing(self._results_file, "w") as file:
            json.dump(content, file, indent=1)
        logger.info("The metrics of each class are in %s", self._results_file)

    def _label(self, image_file: str, shape: tuple[int, int]) -> np.ndarray:
        path = self.input_file_to_gt_file[image_file]
        label = self.sem_seg_loading_fn(path)
        check_label_values(label, path, self._num_classes, self._ignore_label)
        check_label_size(label.shape, path, shape, image_file)
        label[label == self._ignore_label] = self._num_classes
        return label
