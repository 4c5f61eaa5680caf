"""Predictions in the COCO stuff format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pycocotools.mask as mask_util


def encode_prediction(
    predicted: np.ndarray, file_name: str, category_ids: Mapping[int, int]
) -> list[dict[str, Any]]:
    """Encode the mask of each predicted class as in detectron2's sem_seg_predictions.json.

    Args:
        predicted: (H, W) class indices.
        file_name: the image's file name.
        category_ids: class index -> the dataset's own id; a class without one keeps its index.

    Returns:
        One {file_name, category_id, segmentation (compressed RLE)} for each predicted class.
    """
    entries = []
    for index in np.flatnonzero(np.bincount(predicted.ravel())).tolist():
        mask = np.asfortranarray(predicted == index, dtype=np.uint8)
        segmentation = mask_util.encode(mask)
        segmentation["counts"] = segmentation["counts"].decode()
        entries.append(
            {
                "file_name": file_name,
                "category_id": category_ids.get(index, index),
                "segmentation": segmentation,
            }
        )
    return entries
