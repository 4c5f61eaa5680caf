"""Pixel counts of every image, beside results.json: what a comparison of two results resamples."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cat_seg.errors import UserError
from cat_seg.evaluation.confusion import pixel_counts
from cat_seg.utils.files import atomic_write

NAME = "image_counts.npz"
# The largest label map that `counts_of_image` takes has 2^32 - 1 pixels.
COUNT, INDEX = np.uint32, np.uint16

ImageEntry = tuple[str, np.ndarray]


class ImageCounts(NamedTuple):
    """Pixel counts by image and class, without the classes that an image does not have.

    Attributes:
        images: the N images, as `names_below_common_folder` gives them.
        classes: the T class names.
        rows: (K,) index of the image of each count.
        columns: (K,) index of its class.
        right: (K,) pixels of that class that are predicted correctly.
        labeled: (K,) pixels labeled as that class.
        predicted: (K,) labeled pixels predicted as that class.
    """

    images: list[str]
    classes: list[str]
    rows: np.ndarray
    columns: np.ndarray
    right: np.ndarray
    labeled: np.ndarray
    predicted: np.ndarray


def counts_of_image(confusion: np.ndarray) -> np.ndarray:
    """Return the counts of one image, (K, 4): class, right, labeled and predicted pixels.

    Args:
        confusion: that of the image, as in `cat_seg.evaluation.confusion`.
    """
    right, labeled, predicted = pixel_counts(confusion)
    (present,) = np.nonzero(labeled + predicted)
    return np.stack([present, right[present], labeled[present], predicted[present]], axis=1).astype(
        COUNT
    )


def image_counts_file(results_file: Path) -> Path:
    """Return the path of the image counts that belong to a results.json."""
    return results_file.with_name(NAME)


def write_image_counts(
    results_file: Path, entries: Iterable[ImageEntry], classes: Sequence[str]
) -> None:
    """Write the counts of all images, compressed, beside results.json.

    Args:
        results_file: results.json, whose folder is created.
        entries: name and `counts_of_image` of each image.
        classes: the T class names.

    Raises:
        OSError: the file cannot be written.
    """
    images, parts = [], [np.zeros((0, 4), COUNT)]
    for name, counts in entries:
        images.append(name)
        parts.append(counts)
    stacked = np.concatenate(parts)
    results_file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(image_counts_file(results_file)) as file:
        np.savez_compressed(
            file,
            images=np.array(images, dtype=np.str_),
            classes=np.array(classes, dtype=np.str_),
            lengths=np.array([len(part) for part in parts[1:]], dtype=COUNT),
            columns=stacked[:, 0].astype(INDEX),
            right=stacked[:, 1],
            labeled=stacked[:, 2],
            predicted=stacked[:, 3],
        )


def read_image_counts(results_file: Path) -> ImageCounts:
    """Read the image counts that belong to a results.json.

    Raises:
        UserError: there are none, or the file cannot be read.
    """
    file = image_counts_file(results_file)
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return _checked({name: stored[name] for name in stored.files})
    except FileNotFoundError as error:
        raise UserError(
            f"{results_file} has no {NAME} beside it, because an earlier version wrote it; remove "
            "it and evaluate again"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} does not hold image counts; evaluate again") from error


def _checked(stored: dict[str, np.ndarray]) -> ImageCounts:
    """Return what a file holds.

    Raises:
        KeyError, TypeError, ValueError: it does not hold image counts.
    """
    images, classes = stored["images"].tolist(), stored["classes"].tolist()
    lengths, columns = stored["lengths"].astype(np.int64), stored["columns"].astype(np.int64)
    counts = [stored[name].astype(np.int64) for name in ("right", "labeled", "predicted")]
    total = int(lengths.sum())
    shapes = {each.shape for each in (columns, *counts)}
    if lengths.shape != (len(images),) or shapes != {(total,)}:
        raise ValueError("the lengths do not match")
    if total and not 0 <= columns.min() <= columns.max() < len(classes):
        raise ValueError("a class does not exist")
    rows = np.repeat(np.arange(len(images)), lengths)
    return ImageCounts(images, classes, rows, columns, *counts)
