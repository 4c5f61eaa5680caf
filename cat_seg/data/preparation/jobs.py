"""Conversion jobs: each writes one label map if it is missing or outdated, checked and atomic."""

from __future__ import annotations

import filecmp
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from cat_seg.data.reading import check_label_size, check_label_values, read_image_size
from cat_seg.data.specs import DatasetSpec
from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write

SAVING = {
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
}


@dataclass(frozen=True)
class Job:
    """A label map to write, and its image.

    Attributes:
        label: the file to write.
        image: the image, whose size the label must have; None if there are no images yet.
        sources: the source files; an output older than any of them is rewritten.
        make_label: returns the label map, (H, W) integers; picklable, like make_image.
        make_image: returns the content of the file `image`, if that is to be written too.
    """

    label: Path
    image: Path | None
    sources: tuple[Path, ...]
    make_label: Callable[[], np.ndarray]
    make_image: Callable[[], bytes] | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files to write."""
        return (self.image, self.label) if self.image and self.make_image else (self.label,)


@dataclass(frozen=True)
class Conversion:
    """All the jobs of a registered dataset.

    Attributes:
        spec: the dataset.
        labels: folder of the label maps.
        jobs: one for each label map.
        warnings: warnings to print before the conversion, one line each.
        drops_unlabeled: whether to skip label maps without a labeled pixel.
    """

    spec: DatasetSpec
    labels: Path
    jobs: tuple[Job, ...]
    warnings: tuple[str, ...] = ()
    drops_unlabeled: bool = False


def splits_on_disk(finders: Sequence[Callable[[], Conversion]]) -> list[Conversion]:
    """Return the conversions of the splits on disk; a missing split is a warning.

    Raises:
        UserError: no split is on disk; this is the first split's error.
    """
    found, missing = [], []
    for find in finders:
        try:
            found.append(find())
        except UserError as error:
            missing.append(str(error))
    if not found:
        raise UserError(missing[0])
    return [replace(found[0], warnings=(*missing, *found[0].warnings)), *found[1:]]


class State(Enum):
    """Result of a job; the value is its wording in the report."""

    CONVERTED = "converted"
    KEPT = "up to date"  # intact and not older than the sources
    UNLABELED = "skipped as unlabeled"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """Result of a job, with the reason if it failed."""

    state: State
    problem: str = ""


@dataclass(frozen=True)
class LabelRules:
    """Requirements for the label maps of a dataset.

    Attributes:
        classes: labels are 0 to classes - 1.
        ignore_label: the value of all other pixels.
        drops_unlabeled: whether to skip label maps without a labeled pixel.
    """

    classes: int
    ignore_label: int
    drops_unlabeled: bool

    @classmethod
    def of(cls, conversion: Conversion) -> LabelRules:
        """Return the rules for a conversion."""
        spec = conversion.spec
        return cls(len(spec.label_names()), spec.ignore_label, conversion.drops_unlabeled)

    @property
    def dtype(self) -> np.dtype:
        """Data type of the values in the file."""
        return np.min_scalar_type(self.ignore_label)


def run_job(rules: LabelRules, job: Job) -> Outcome:
    """Write the files of a job unless they exist and are intact.

    Raises:
        UserError: a file cannot be written. This is not a failed job, since writing the next file
            would fail too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about broken files, which then fail anyway
        if _is_intact(job, rules):
            return Outcome(State.KEPT)
        try:
            for source in job.sources:
                if source.suffix == ".png":
                    _verify(source)
            label = job.make_label()
            image = job.make_image() if job.make_image else None
            _check(label, job.sources[0], rules, job.image if image is None else None)
        except UserError as error:
            return Outcome(State.FAILED, str(error))
        except Exception as error:  # the decoders raise OSError, SyntaxError, zlib.error and more
            names = " and ".join(map(str, job.sources))
            reason = str(error) or type(error).__name__
            return Outcome(State.FAILED, f"cannot convert {names}: {reason}; replace or remove it")
    if rules.drops_unlabeled and (label == rules.ignore_label).all():
        job.label.unlink(missing_ok=True)
        return Outcome(State.UNLABELED)
    try:
        if job.image and image is not None:
            with atomic_write(job.image) as file:
                file.write(image)
        with atomic_write(job.label) as file:
            Image.fromarray(label.astype(rules.dtype)).save(file, **SAVING[job.label.suffix])
    except OSError as error:
        raise UserError(
            f"cannot write {job.label}: {error}; free some space or fix the permissions, "
            "and run the same command again"
        ) from error
    return Outcome(State.CONVERTED)


def _is_intact(job: Job, rules: LabelRules) -> bool:
    try:
        newest_source = max(os.stat(path).st_mtime_ns for path in job.sources)
        if min(os.stat(path).st_mtime_ns for path in job.targets) < newest_source:
            return False
        # Earlier versions copied images; the published script re-encodes every image.
        if job.image and job.make_image and filecmp.cmp(job.image, job.sources[0], shallow=False):
            return False
        for path in job.targets:
            _verify(path)
            with Image.open(path) as file:
                label = np.asarray(file)  # the last target is the label
        _check(label, job.label, rules, job.image)
    except Exception:  # any type, as in `run_job`; redoing the job reports problems of the sources
        return False
    return label.dtype == rules.dtype


def _verify(path: Path) -> None:
    """Verify the checksums of a PNG file, since reading skips some; other formats have none."""
    with Image.open(path) as file:
        file.verify()


def _check(label: np.ndarray, path: Path, rules: LabelRules, image: Path | None) -> None:
    if label.ndim != 2 or not label.size or label.dtype.kind not in "bui":
        raise UserError(
            f"label {path} is not a single channel of integers (shape {label.shape}, "
            f"{label.dtype}); replace it"
        )
    check_label_values(label, str(path), rules.classes, rules.ignore_label)
    if image:
        check_label_size(label.shape, str(path), read_image_size(str(image)), str(image))
