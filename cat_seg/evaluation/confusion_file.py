"""The file with the confusion matrix of an evaluation, beside its results.json."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write

NAME = "confusion.npz"


class Confusion(NamedTuple):
    """A confusion matrix.

    Attributes:
        counts: (T, T + 1) pixels by predicted class (rows) and label (columns); the last column
            counts the ignored pixels.
        names: the T class names.
    """

    counts: np.ndarray
    names: list[str]


def confusion_file(results_file: Path) -> Path:
    """Return the path of the confusion matrix that belongs to a results.json."""
    return results_file.with_name(NAME)


def write_confusion(results_file: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Write a confusion matrix, compressed, beside results.json.

    Args:
        results_file: results.json, whose folder is created.
        counts, names: see `Confusion`.

    Raises:
        OSError: the file cannot be written.
    """
    results_file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(confusion_file(results_file)) as file:
        np.savez_compressed(file, counts=counts, names=np.array(names, dtype=np.str_))


def read_confusion(results_file: Path) -> Confusion:
    """Read the confusion matrix that belongs to a results.json.

    Raises:
        FileNotFoundError: the evaluation wrote none.
        UserError: the file cannot be read.
    """
    file = confusion_file(results_file)
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            counts, names = stored["counts"], stored["names"].tolist()
        if counts.shape != (len(names), len(names) + 1) or counts.dtype.kind not in "iu":
            raise ValueError("not a confusion matrix")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a confusion matrix; evaluate again") from error
    return Confusion(counts, names)
