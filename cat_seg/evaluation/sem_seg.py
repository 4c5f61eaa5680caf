"""The semantic segmentation evaluator, which writes metrics and predictions."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from cat_seg.data.reading import check_label_size, check_label_values, read_label
from cat_seg.data.soundness import LEAST_LABELED
from cat_seg.data.specs import DatasetSpec
from cat_seg.errors import UserError
from cat_seg.evaluation.confusion import miou_present_or_predicted, semantic_metrics
from cat_seg.evaluation.confusion_file import write_confusion
from cat_seg.evaluation.image_counts import ImageEntry, counts_of_image, write_image_counts
from cat_seg.evaluation.predictions import encode_prediction
from cat_seg.evaluation.record import data_record, incompleteness, names_below_common_folder
from cat_seg.utils.files import atomic_write

logger = logging.getLogger(__name__)

# Maximum number of skipped images named in the log, in results.json and in the final error.
NAMED = 5


class SemSegEvaluator(DatasetEvaluator):
    """Accumulates one confusion matrix over all images and ranks.

    It shares no code with detectron2's evaluator of the same name, whose mIoU and arguments depend
    on the version. Labels may have 16 bits. If the metadata has `background_from`, all predictions
    from that index on count as one background class with that index.
    """

    def __init__(
        self,
        dataset_name: str,
        results_file: Path | None = None,
        *,
        record: Mapping[str, Any] | None = None,
        save_predictions: bool = False,
        ignore_orientation: bool = False,
    ) -> None:
        """Prepare to evaluate a registered dataset.

        Args:
            dataset_name: its metadata has stuff_classes and ignore_label, and may have
                background_from and stuff_dataset_id_to_contiguous_id.
            results_file: where rank 0 writes the metrics.
            record: additional entries of that file, such as those from `run_record`.
            save_predictions: also write sem_seg_predictions.json beside it, in the COCO stuff
                format: a list of {file_name, category_id, segmentation (RLE)} for each class in
                each prediction. category_id is the dataset's own id if the metadata has one, else
                the class index.
            ignore_orientation: read labels as stored, without applying the EXIF orientation.
        """
        self._dataset_name = dataset_name
        self._label_files = {
            record["file_name"]: record["sem_seg_file_name"]
            for record in DatasetCatalog.get(dataset_name)
        }
        images = [*self._label_files]
        self._names = dict(zip(images, names_below_common_folder(images), strict=True))
        metadata = MetadataCatalog.get(dataset_name)
        self._expected = _expected_images(metadata.get("spec"), len(self._label_files))
        self._ignore_label = metadata.ignore_label
        self._background = metadata.get("background_from")
        self._class_names = list(metadata.stuff_classes)
        if self._background is not None:
            self._class_names = [*self._class_names[: self._background], "background"]
        indices = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
        self._category_ids = {index: category for category, index in indices.items()}
        self._results_file = results_file
        self._record = dict(record or {})
        vocabulary = self._record.get("vocabulary", metadata.stuff_classes)
        self._data = data_record(images, vocabulary)
        self._save_predictions = save_predictions and results_file is not None
        self._ignore_orientation = ignore_orientation
        self.reset()

    def reset(self) -> None:
        """Reset all counts and the timer."""
        classes = len(self._class_names)
        self._confusion = np.zeros((classes, classes + 1), dtype=np.int64)
        self._predictions: list[dict[str, Any]] = []
        self._image_counts: list[ImageEntry] = []
        self._skipped: list[str] = []
        self._start = time.perf_counter()

    @property
    def confusion(self) -> np.ndarray:
        """Pixel counts so far, (T, T + 1), as in `cat_seg.evaluation.confusion`."""
        return self._confusion

    @property
    def skipped(self) -> list[str]:
        """Reasons for skipped images, of this rank; on rank 0 after `evaluate`, of all ranks."""
        return self._skipped

    def process(
        self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any] | None]
    ) -> None:
        """Add the pixels of a batch to the confusion matrix.

        An image is skipped, and named in the log, if it is unreadable or if its label is
        unreadable, has an invalid value or has another size.

        Args:
            inputs: one dict per image with "file_name", or with "unreadable", the reason.
            outputs: one dict per image, at the label's size: "labels", class indices (H, W), or
                "sem_seg", scores (T, H, W). None for an unreadable image.
        """
        for item, output in zip(inputs, outputs, strict=True):
            try:
                if "unreadable" in item:
                    raise UserError(item["unreadable"])
                assert output is not None  # only unreadable images have none
                self._process_one(item["file_name"], _labels(output))
            except UserError as error:
                self._skipped.append(str(error))
                if len(self._skipped) <= NAMED:
                    logger.warning("Skipped in %s: %s", self._dataset_name, error)

    def _process_one(self, image_file: str, labels: Tensor) -> None:
        predicted = labels.cpu().numpy()
        if self._background is not None:
            predicted = np.minimum(predicted, self._background)
        self._count(predicted, image_file)
        if self._save_predictions:
            self._predictions += encode_prediction(predicted, image_file, self._category_ids)

    def _count(self, predicted: np.ndarray, image_file: str) -> None:
        classes = len(self._class_names)
        path = self._label_files[image_file]
        label = read_label(path, None, self._ignore_orientation)
        check_label_values(label, path, classes, self._ignore_label)
        check_label_size(label.shape, path, predicted.shape, image_file)
        cells = predicted * (classes + 1)
        cells += np.where(label == self._ignore_label, classes, label)
        counts = np.bincount(cells.ravel(), minlength=self._confusion.size)
        confusion = counts.reshape(self._confusion.shape)
        self._confusion += confusion
        self._image_counts.append((self._names[image_file], counts_of_image(confusion)))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the metrics of `semantic_metrics`, write them, and return them.

        The results file also has mIoU_present_or_predicted, the number of skipped images, and the
        reasons for the first few. NaN is written as null. The pixel counts of every image are
        written beside it; see `cat_seg.evaluation.image_counts`.

        Returns:
            {"sem_seg": {metric: value}} on rank 0, None on the others.

        Raises:
            UserError: the results cannot be written.
        """
        parts = comm.gather((self._confusion, self._predictions, self._image_counts, self._skipped))
        if not parts:  # only rank 0 gets them
            return None
        confusions, predictions, counted, skipped = zip(*parts, strict=True)
        entries = list(itertools.chain(*counted))
        self._skipped = list(itertools.chain(*skipped))
        confusion = np.sum(confusions, axis=0)
        metrics = semantic_metrics(confusion, self._class_names)
        if self._results_file is not None:
            try:
                if self._save_predictions:
                    self._write_predictions(list(itertools.chain(*predictions)))
                write_confusion(self._results_file, confusion, self._class_names)
                write_image_counts(self._results_file, entries, self._class_names)
                self._write(metrics, confusion, len(entries))
            except OSError as error:
                raise UserError(f"cannot write {self._results_file}: {error.strerror}") from error
        return {"sem_seg": metrics}

    def _write_predictions(self, predictions: list[dict[str, Any]]) -> None:
        assert self._results_file is not None  # see `evaluate`
        file = self._results_file.with_name("sem_seg_predictions.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, "w") as stream:
            json.dump(predictions, stream)

    def _write(self, metrics: dict[str, float], confusion: np.ndarray, images: int) -> None:
        assert self._results_file is not None  # see `evaluate`
        labeled = confusion[:, :-1].sum(axis=0)  # pixels of each class
        both = {
            "mIoU": metrics["mIoU"],
            "mIoU_present_or_predicted": miou_present_or_predicted(confusion),
        }
        content = {
            "dataset": self._dataset_name,
            "sem_seg": {
                name: None if math.isnan(value) else value
                for name, value in (both | metrics).items()
            },
            "counts": {
                "images": images,
                "skipped": len(self._skipped),
                "expected": self._expected,
                "labeled_pixels": int(labeled.sum()),
                "ignored_pixels": int(confusion[:, -1].sum()),
                "classes": len(self._class_names),
                "classes_present": int((labeled > 0).sum()),
            },
            "skipped": self._skipped[:NAMED],
            "data": self._data,
            **self._record,
            "seconds": round(time.perf_counter() - self._start, 3),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        self._results_file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._results_file, "w") as file:
            json.dump(content, file, indent=1)
        logger.info("Per-class metrics are in %s", self._results_file)
        if short := incompleteness(content):
            logger.warning("The metrics of %s cover only %s", self._dataset_name, short)


def _labels(output: dict[str, Tensor]) -> Tensor:
    return output["labels"] if "labels" in output else output["sem_seg"].argmax(dim=0)


def _expected_images(spec: DatasetSpec | None, found: int) -> int | None:
    """Return the number of images in a complete copy, or None if unknown.

    If preparation drops unlabeled images, a number slightly below the expected one is complete.
    """
    if spec is None or spec.expected is None:
        return None
    if spec.drops_unlabeled and LEAST_LABELED * spec.expected <= found < spec.expected:
        return found
    return spec.expected
